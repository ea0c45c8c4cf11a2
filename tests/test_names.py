"""No part's name stands as a literal outside the part's own files.

The platform asks a part what it is, never who.
"""

import ast
from pathlib import Path

import pytest

from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.registry import TASKS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("models", "tasks", "avplatform", "hub_cards")
DATASETS = ("llp", "ave")


def own_files(name: str) -> tuple[str, ...]:
    """What begins so is a part's own, by its name; "ave" is an encoder and a dataset."""
    models = (f"models/{kind}/{name}.py" for kind in ("encoders", "decoders", "official"))
    return (*models, f"tasks/{name}/", f"avplatform/data/adapters/{name}/")


NAMES = {*ENCODERS, *DECODERS, *TASKS, *DATASETS}


def literals(source: str, config: str = "") -> list[tuple[int, str]]:
    """Lines and values of all text constants that are names of parts.

    The values of an option (the field of a config that is a `Literal`) are words of that option,
    wherever its own file uses them, and where the file's folder has a `config.py`, in its files
    too: a head's form may be called as the paper is.
    """
    tree = ast.parse(source)
    words = {
        constant.value
        for text in (tree, ast.parse(config))
        for kind in ast.walk(text)
        if isinstance(kind, ast.ClassDef) and kind.name.endswith("Config")
        for field in kind.body
        if isinstance(field, ast.AnnAssign)
        for part in ast.walk(field.annotation)
        if isinstance(part, ast.Subscript) and getattr(part.value, "id", "") == "Literal"
        for constant in ast.walk(part.slice)
        if isinstance(constant, ast.Constant)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in NAMES - words
    ]


def strangers(root: Path) -> dict[str, list[str]]:
    """Return, by file, the names that do not belong there."""
    found: dict[str, list[str]] = {}
    for file in sorted(f for folder in FOLDERS for f in (root / folder).rglob("*.py")):
        path = file.relative_to(root).as_posix()
        options = file.with_name("config.py")
        config = options.read_text(encoding="utf-8") if options.exists() else ""
        for line, name in literals(file.read_text(encoding="utf-8"), config):
            if not path.startswith(own_files(name)):
                found.setdefault(path, []).append(f"{path}:{line}: '{name}'")
    return found


def test_no_parts_name_is_a_literal_outside_its_own_files():
    found = strangers(ROOT)
    assert [line for lines in found.values() for line in lines] == []


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("models/encoders/han.py", 'name = "han"', 0),
        ("models/encoders/psp.py", 'name = "han"', 1),
        ("avplatform/config/run.py", 'if task == "avvp": pass', 1),
        ("tasks/avvp/task.py", 'if decoder == "leap": pass', 1),
        ("tasks/avvp/task.py", 'name = "avvp"', 0),
        ("avplatform/data/adapters/ave/facts.py", 'name = "ave"', 0),
        ("tasks/x.py", 'class XConfig:\n    loss: Literal["han"] = "han"', 0),
        ("tasks/x.py", 'class X:\n    loss: Literal["han"] = "han"', 2),
    ],
)
def test_the_check_tells_own_names_from_others(tmp_path, path, source, wrong):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert len([line for lines in strangers(tmp_path).values() for line in lines]) == wrong
