"""The built wheel is whole: it installs into an empty environment and renders a card there."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CARD = (
    "from avplatform.data.adapters.llp import simulation as llp\nfrom avplatform.hub.push import card_of_spec\n"
    "from avplatform.catalogue.published import published_tables\n"
    "import avplatform, avplatform.models.texts.glove as m\nprint(avplatform.__file__)\nprint(len(m.shipped_vectors()))\n"
    "print(len(published_tables()))\n"
    "print(card_of_spec(llp.spec(llp.LLPSimulation())))"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "tree"
    subprocess.run(["cp", "-r", str(ROOT), str(source)], check=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_the_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for package in ("avplatform", "models", "tasks", "hub_cards"):
        for file in (ROOT / package).rglob("*"):
            if file.suffix in (".py", ".jinja", ".safetensors", ".yaml"):
                expected.add(str(file.relative_to(ROOT)))
    assert expected <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_wheel_installs_alone_and_renders_a_card(wheel, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies come from here; a plain path entry does not bring this checkout's own packages with it.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    without = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # it may name this checkout
    done = subprocess.run(
        [str(python), "-c", CARD], capture_output=True, text=True, cwd=tmp_path, env=without
    )
    assert done.returncode == 0, done.stderr[-2000:]
    where, words, tables, card = done.stdout.split("\n", 3)
    assert (
        where.startswith(str(environment))
        and int(words) > 60
        and int(tables) >= 10
        and "Synthetic features" in card
    )
