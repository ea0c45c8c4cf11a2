"""The built wheel is whole, and avplatform works installed in either way, beside other packages."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from avplatform.version import __version__
from tests.import_graph import BESIDE, PACKAGE
from tests.test_structure import STRANGER, clean_environment, strangers_folder

ROOT = Path(__file__).resolve().parent.parent
CARD = (
    "from avplatform.data.adapters.llp.adapter import LLPAdapter\n"
    "from avplatform.data.store.card import card_of_spec\n"
    "from avplatform.catalogue.published import published_tables\n"
    "import avplatform, avplatform.models.texts.glove as m\n"
    "print(avplatform.__file__)\nprint(len(m.shipped_vectors()))\n"
    "print(len(published_tables()))\n"
    "print(card_of_spec(LLPAdapter().simulated_spec(LLPAdapter().preset())))"
)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
PAGES = ("CHANGELOG.md", "CITATION.cff", "SECURITY.md")
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources: building and installing leave files beside them."""
    tree = tmp_path_factory.mktemp("source") / "tree"
    tree.mkdir()
    for folder in (PACKAGE, *BESIDE):
        shutil.copytree(ROOT / folder, tree / folder, ignore=lambda *_: {"__pycache__"})
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", *PAGES):
        shutil.copy(ROOT / file, tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_packaging.py").write_text("")
    return tree


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """A folder with the sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)])
    return out


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("installed"), str(wheel))


def run(command, folder=None):
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=clean_environment()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def environment(folder, *what):
    """Make a virtual environment, install avplatform into it, and return its python."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    # The dependencies come from here; plain path entries do not bring this environment's own
    # avplatform with them.
    site = next((folder / "lib").glob("python*/site-packages"))
    others = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    python = str(folder / "bin" / "python")
    run([*PIP, "--python", python, "install", "-q", *OFFLINE, "--ignore-installed", *what])
    return python


def test_the_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for package in (PACKAGE, *BESIDE):
        for file in (ROOT / package).rglob("*"):
            if file.suffix in (".py", ".jinja", ".safetensors", ".yaml", ".csv", ".typed"):
                name = str(file.relative_to(ROOT))
                expected.add(name if package == PACKAGE else f"{PACKAGE}/{name}")
    assert expected <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {PACKAGE}


def test_every_shipped_package_is_marked_as_typed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    markers = {f"{PACKAGE}/py.typed"} | {f"{PACKAGE}/{name}/py.typed" for name in BESIDE}
    assert markers <= names


def test_the_version_stands_in_one_place(built):
    names = sorted(file.name for file in built.iterdir())
    assert [name.split("-")[1].removesuffix(".tar.gz") for name in names] == [__version__] * 2
    files = [ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / "CITATION.cff"]
    files += [file for name in (PACKAGE, *BESIDE) for file in (ROOT / name).rglob("*.py")]
    saying = [file.name for file in files if f'"{__version__}"' in file.read_text("utf-8")]
    assert saying == ["version.py"]


def test_the_sdist_holds_the_pages_of_a_release_and_no_tests(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*PAGES, "LICENSE", "README.md", "pyproject.toml", "setup.py"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_wheel_installs_alone_and_renders_a_card(installed, tmp_path):
    where, words, tables, card = run([installed, "-c", CARD], tmp_path).split("\n", 3)
    assert where.startswith(str(Path(installed).parent.parent))
    assert int(words) > 60 and int(tables) >= 10 and "Synthetic features" in card


def test_the_wheel_works_beside_a_strangers_models_and_tasks(installed, tmp_path):
    where = run([installed, "-c", STRANGER], strangers_folder(tmp_path / "theirs"))
    assert where.startswith(str(Path(installed).parent.parent))


def test_an_editable_install_works_beside_a_strangers_models_and_tasks(source, tmp_path):
    python = environment(tmp_path / "environment", "-e", str(source))
    where = run([python, "-c", STRANGER], strangers_folder(tmp_path / "theirs"))
    assert where.startswith(str(source))
