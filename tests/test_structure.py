"""The structure holds: imports run one way, and a stranger's `models` or `tasks` is told apart."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "models": {"models"},
    "tasks": {"tasks", "models"},
    "avplatform": {"avplatform", "tasks", "models", "hub_cards"},
    "hub_cards": {"hub_cards"},
    "train.py": {"avplatform"},
}
OURS = {"models", "tasks", "avplatform", "hub_cards", "tests", "benchmarks", "train"}


def imported_packages(source: str, package: str) -> set[str]:
    """Top-level names that a file imports: plainly, relatively, or by a literal name given to an import function."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call):
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if (
                name in ("import_module", "__import__")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value).split(".")[0])
    return found & OURS


def forbidden_imports(root: Path) -> list[str]:
    bad = []
    for package, allowed in ALLOWED.items():
        files = (
            [root / package] if package.endswith(".py") else sorted((root / package).rglob("*.py"))
        )
        for file in files:
            strangers = imported_packages(file.read_text(), package) - allowed
            bad += [f"{file.relative_to(root)} imports {name}" for name in sorted(strangers)]
    return bad


def test_imports_run_one_way():
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "import avplatform.tasks.avel",
        "from avplatform.data import open_data",
        "importlib.import_module('avplatform.cli')",
    ],
)
def test_the_check_finds_a_forbidden_import(tmp_path, line):
    for package in ("models", "tasks", "avplatform", "hub_cards"):
        (tmp_path / package).mkdir()
    (tmp_path / "train.py").write_text("import avplatform\n")
    (tmp_path / "models" / "wrong.py").write_text(f"import importlib\n{line}\n")
    assert len(forbidden_imports(tmp_path)) == 1


def test_train_py_imports_only_avplatform(tmp_path):
    assert imported_packages((ROOT / "train.py").read_text(), "train.py") == {"avplatform"}


@pytest.mark.parametrize("name", ["models", "tasks"])
def test_a_strangers_package_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the stranger ran')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import avplatform"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=clean_env()
    )
    assert done.returncode == 1
    assert "ImportError" in done.stderr and str(tmp_path / name) in done.stderr
    assert "the stranger ran" not in done.stderr


def test_importing_avplatform_does_not_import_torch():
    code = "import sys, avplatform; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean_env()).returncode == 0


def test_every_module_imports():
    for package in ("models", "tasks", "avplatform", "hub_cards"):
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if not name.endswith("__main__"):
                assert importlib.import_module(name) is not None


def test_the_help_of_every_flag_stands_on_one_line():
    """The flags' library breaks help where its source does, in the middle of a sentence."""
    broken = []
    for file in [
        *(ROOT / "avplatform" / "commands").glob("*.py"),
        ROOT / "avplatform" / "config.py",
    ]:
        for kind in (
            node
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef)
        ):
            for option, text in zip(kind.body, kind.body[1:], strict=False):
                if (
                    isinstance(option, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    broken += (
                        [f"{file.name}: {ast.unparse(option)}"]
                        if "\n" in str(text.value.value)
                        else []
                    )
    assert broken == []


def test_no_file_is_larger_than_a_megabyte():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [f.name for f in files if f.exists() and f.stat().st_size > 1_000_000] == []


def clean_env() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
