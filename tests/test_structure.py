"""The structure holds: imports run one way without circles; others' `models` stay theirs."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_graph import (
    BESIDE,
    PACKAGE,
    arrows_up,
    circles,
    imports,
    module_graph,
    modules,
    room_graph,
)

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    *("version", "models", "tasks", "hub_cards", "base", "scale"),
    *(
        "data.store",
        "data.adapters",
        "data.importing",
        "data.simulate",
        "data.reading",
        "data",
        "data.verify",
    ),
    *("labels", "config", "features", "pseudo_labels", "training_free", "runs", "hub", "exported"),
    "timeline",
    "demo",  # shows what `timeline` makes; only its command is above it
    *("evaluation", "catalogue", "training", "sweeps", "reproduce"),
    *("commands", "cli", "__main__", "api", "avplatform"),
]
"""All rooms, from the ground up: each may import only rooms that stand before it."""

MOST_LINES = 430


def faults(root: Path) -> list[str]:
    """Return what is wrong with the imports of a checkout, one line per fault."""
    graph = module_graph(root)
    found = [f"circle of modules: {', '.join(group)}" for group in circles(graph)]
    found += [f"circle of rooms: {', '.join(group)}" for group in circles(room_graph(graph))]
    found += [f"arrow up: {arrow}" for arrow in arrows_up(graph, FLOORS)]
    for name, file in modules(root).items():
        bare = {module for module, _ in imports(file.read_text(encoding="utf-8"))}
        found += [
            f"{name} imports {module}: say {PACKAGE}.{module}"
            for module in sorted(bare)
            if module.split(".")[0] in BESIDE or module.startswith(".")
        ]
    return found


def test_imports_run_one_way_without_circles():
    assert faults(ROOT) == []


def test_every_room_has_its_floor():
    assert sorted(FLOORS) == sorted(room_graph(module_graph(ROOT)))


PLANTED = [
    ("models/stem.py", "from avplatform.tasks.batch import Batch", "arrow up"),
    ("models/stem.py", "import avplatform.base.console", "arrow up"),
    ("tasks/losses.py", "from avplatform import open_data", "arrow up"),
    ("tasks/losses.py", "importlib.import_module('avplatform.cli')", "arrow up"),
    ("avplatform/base/files.py", "def f():\n    from avplatform.training.loop import Run",
     "circle of rooms"),
    ("models/checks.py", "def f():\n    from avplatform.models import config", "circle of modules"),
    ("tasks/avvp/metrics.py", "from avplatform.tasks.avvp.task import AVVP", "circle of modules"),
    ("avplatform/cli.py", "from models.errors import AVError", "say avplatform.models"),
    ("benchmarks/x.py", "from tasks.registry import TASKS", None),
    ("avplatform/base/files.py", "if TYPE_CHECKING:\n    from avplatform.training.loop import Run",
     None),
]  # fmt: skip


@pytest.mark.parametrize(("file", "line", "fault"), PLANTED)
def test_a_planted_import_is_found(tmp_path, file, line, fault):
    for folder in (PACKAGE, *BESIDE, "benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=lambda *_: {"__pycache__"})
    with (tmp_path / file).open("a", encoding="utf-8") as added:
        added.write(f"\n{line}\n")
    new = set(faults(tmp_path)) - set(faults(ROOT))
    assert any(fault in text for text in new) if fault else not new


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_the_folders_beside_the_package_are_never_imported_by_bare_names(folder):
    bare = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for module, _ in imports(file.read_text(encoding="utf-8"))
        if module.split(".")[0] in BESIDE
    ]
    assert bare == []


def test_tests_import_no_benchmarks_except_to_test_them():
    importing = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if file.parent.name != "benchmarks"
        and any(m.split(".")[0] == "benchmarks" for m, _ in imports(file.read_text("utf-8")))
    ]
    assert importing == []


@pytest.mark.parametrize(
    ("written", "home"),
    [
        ("str(error).split()", "models/errors.py"),
        ('"synthetic-data"', "avplatform/hub/card_data.py"),
    ],
    ids=["one_line", "SYNTHETIC_TAG"],
)
def test_what_many_modules_need_is_written_once(written, home):
    folders = (PACKAGE, *BESIDE, "benchmarks", "examples")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    found = [str(file.relative_to(ROOT)) for file in files if written in file.read_text("utf-8")]
    assert found == [home]


def test_train_py_imports_only_the_command_line():
    assert dict(imports((ROOT / "train.py").read_text())) == {"sys": "", "avplatform.cli": "main"}


def clean_environment() -> dict[str, str]:
    """Return the environment without PYTHONPATH, which may name this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run_python(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run code in a folder, whose own packages come first, as they do in `python -c`."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=clean_environment() | env
    )


STRANGER = """
import models, tasks
from avplatform import AVModel, pipeline
import avplatform.models.errors, avplatform.tasks.registry
assert models.OWN == "models" and tasks.OWN == "tasks", (models, tasks)
assert callable(pipeline) and AVModel.__module__ == "avplatform.models.av_model"
import avplatform
print(avplatform.__file__)
"""


def strangers_folder(folder: Path) -> Path:
    """Make a folder with packages `models` and `tasks`, as many research repositories have."""
    for name in ("models", "tasks"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"OWN = {name!r}\n")
    return folder


def test_a_strangers_models_and_tasks_stay_the_strangers(tmp_path):
    done = run_python(STRANGER, strangers_folder(tmp_path / "theirs"), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(ROOT))


def test_importing_avplatform_does_not_import_torch():
    for line in (
        "import avplatform",
        "import avplatform.cli",
        "from avplatform import __version__",
    ):
        code = f"import sys; {line}; sys.exit('torch' in sys.modules)"
        assert run_python(code, ROOT).returncode == 0, line


def test_every_module_imports_by_its_name():
    for name in modules(ROOT):
        if not name.endswith("__main__"):
            assert importlib.import_module(name).__name__ == name
    assert not set(BESIDE) & set(sys.modules)


def broken_help(root: Path) -> list[str]:
    """Return the options whose help text has a line break in the middle."""
    broken = []
    for name, file in modules(root).items():
        for kind in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(kind, ast.ClassDef) or "dataclass" not in str(
                [ast.unparse(decorator) for decorator in kind.decorator_list]
            ):
                continue
            for option, text in zip(kind.body, kind.body[1:], strict=False):
                if (
                    isinstance(option, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                    and "\n" in str(text.value.value)
                ):
                    broken.append(f"{name}.{kind.name}: {ast.unparse(option)}")
    return broken


def test_the_help_of_every_flag_stands_on_one_line():
    """The flags' library breaks help where its source does, in the middle of a sentence."""
    assert broken_help(ROOT) == []


def test_a_broken_help_is_found(tmp_path):
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "options.py").write_text(
        '@dataclass\nclass Options:\n    one: int = 1\n    """help\n    in two lines"""\n'
    )
    assert broken_help(tmp_path) == ["avplatform.options.Options: one: int = 1"]


def test_files_are_of_a_size_that_one_reads():
    lines = {name: file.read_text("utf-8").count("\n") for name, file in modules(ROOT).items()}
    assert [f"{name}: {count}" for name, count in lines.items() if count > MOST_LINES] == []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [f.name for f in files if f.exists() and f.stat().st_size > 1_000_000] == []
