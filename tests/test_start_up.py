"""`list`, `info` and `train --help` print kept facts, which are those that the code computes."""

import json
import os
import subprocess
import sys
import time

import pytest

from avplatform.catalogue import figures
from avplatform.catalogue.kept import (
    MADE_OF,
    all_facts,
    changed_module,
    kept_description,
    kept_facts,
    kept_flags,
    outdated,
    packed,
    unpacked,
)
from avplatform.cli import main
from avplatform.config.help import short_flags
from avplatform.config.run import default_config
from avplatform.models.encoders import ENCODERS
from tests import facts

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "datasets", "transformers", "accelerate",
         "huggingface_hub", "matplotlib", "h5py", "yaml")  # fmt: skip
ASKED = [
    ["list"],
    ["list", "--json"],
    ["list", "--encoder", "psp"],
    ["info", "avel-ave-leap-full"],
    ["info", "avvp/han/mmil", "--json"],
    ["info", "mmpyr-leap.avvp"],
    ["info", "han-leap-avvp-official"],
    ["train", "--help"],
    ["train", "-h", "--task", "avvp", "--encoder=han", "--decoder", "mmil"],
    ["train", "--preset", "han-mmil-avvp-weak-official", "--help"],
]
FRESH = """
import contextlib, io, json, sys
from avplatform.catalogue import kept
from avplatform.cli import main

kept.outdated = lambda: False  # as in an installed package, whatever was edited in this checkout

printed = []
for args in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(args)
    printed.append(out.getvalue())
print(json.dumps([printed, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
MINE = """
import sys
from avplatform import register_encoder
from avplatform.catalogue import kept
from avplatform.cli import main
from avplatform.models.encoders import ENCODERS

class Mine(ENCODERS["identity"]):
    '''An encoder of another package.'''

kept.outdated = lambda: False
Mine.__module__ = "mine"
register_encoder("mine", Mine)
sys.exit(main(["list", "--json", "mine"]))
"""


def run_fresh(code: str, *args: str) -> str:
    """Return what code prints in a process of its own."""
    command = [sys.executable, "-c", code, *args]
    wide = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout


@pytest.fixture(scope="module")
def fresh():
    """Return what a new process prints for each of ASKED, and the packages that it imported."""
    printed, imported = json.loads(run_fresh(FRESH, json.dumps(ASKED)))
    return printed, set(imported)


def test_lists_and_help_import_no_networks(fresh):
    _, imported = fresh
    assert imported & set(HEAVY) == set()
    assert "tyro" in imported


@pytest.mark.parametrize("number", range(len(ASKED)), ids=lambda n: " ".join(ASKED[n]))
def test_kept_facts_print_what_the_code_prints(number, fresh, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert kept_facts() is None  # the parts are imported here, so that others may be registered
    try:
        main(ASKED[number])
    except SystemExit as end:
        assert not end.code
    assert capsys.readouterr().out == fresh[0][number] != ""


def test_the_kept_facts_are_those_of_the_code():
    kept, computed = all_facts(), facts.computed()
    changed = [name for name in computed if kept.get(name) != computed[name]]
    assert changed == [] and set(kept) == set(computed), "run `python -m tests.facts`"


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout: its files by name, all an hour old."""
    files = [tmp_path / folder / "a.py" for folder in MADE_OF]
    files += [tmp_path / "pyproject.toml", tmp_path / "avplatform" / "catalogue" / "facts.json"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - 3600,) * 2)
    return tmp_path


def test_facts_are_kept_while_no_module_of_a_checkout_is_newer(checkout):
    assert changed_module(checkout) is None
    (checkout / "models" / "b.txt").touch()  # no module
    (checkout / "avplatform" / "cli.py").touch()  # none that facts are made of
    assert changed_module(checkout) is None
    (checkout / "avplatform" / "catalogue" / "facts.json").touch()
    (checkout / "tasks" / "a.py").touch()  # as `git clone` does
    assert changed_module(checkout) is None


@pytest.mark.parametrize("folder", MADE_OF)
def test_facts_are_not_kept_where_a_module_of_a_checkout_is_newer(checkout, folder, monkeypatch):
    (checkout / folder / "deep").mkdir()
    (checkout / folder / "deep" / "new.py").touch()
    assert changed_module(checkout) == f"{folder}/deep/new.py"
    (checkout / "pyproject.toml").unlink()  # an installed package
    assert changed_module(checkout) is None


def test_a_changed_checkout_computes_what_it_shows_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr("avplatform.catalogue.kept.REGISTRIES", ())
    assert kept_facts() is not None
    monkeypatch.setattr("avplatform.catalogue.kept.outdated", outdated.__wrapped__)
    monkeypatch.setattr("avplatform.catalogue.kept.changed_module", lambda root: "models/stem.py")
    assert kept_facts() is None and kept_flags(["--help"]) is None
    assert "models/stem.py is newer than the kept facts" in capsys.readouterr().err
    figures._kept_totals.cache_clear()
    assert figures._kept_totals() == {}
    figures._kept_totals.cache_clear()


def test_a_changed_default_differs_from_the_kept_facts(monkeypatch):
    def flags():
        return json.loads(json.dumps(short_flags(default_config("avvp", "han", "mmil", "weak"))))

    kept = all_facts()["flags"]["avvp-han-mmil-weak"]
    assert flags() == kept
    monkeypatch.setitem(ENCODERS["han"].Config.__init__.__kwdefaults__, "width", 256)
    assert flags() != kept


def test_what_is_not_kept_is_left_to_the_code(monkeypatch):
    monkeypatch.setattr("avplatform.catalogue.kept.REGISTRIES", ())
    assert kept_flags(["--help"])["cell"] == ["avel", "ave", "leap", "full"]
    for args in (["--help", "--epochs", "3"], ["--help", "--task", "avle"], ["--task", "avvp"],
                 ["--help", "--config", "x.yaml"], ["--help-all"], ["--help", "run"],
                 ["--help", "--preset", "none"], ["--help", "--task", "avvp", "--task", "avel"],
                 ["--help", "--preset", "x", "--task", "avel"], ["--help", "--task"]):  # fmt: skip
        assert kept_flags(args) is None, args
    assert kept_description("avel-psp-dch")["name"] == "avel-psp-dch-full"
    assert kept_description("avel-psp-dhc") is None


def test_a_part_of_another_package_is_listed():
    found = json.loads(run_fresh(MINE))
    assert found["encoders"] == ["mine"] and len(found["cells"]) == 42
    assert {cell["status"] for cell in found["cells"]} == {"outside"}


def test_training_waits_for_no_drawings_before_its_first_step():
    code = "import sys, avplatform.training.loop; print(sorted(sys.modules))"
    imported = run_fresh(code)
    for name in ("matplotlib", "jinja2", "torch.distributed.checkpoint"):
        assert f"'{name}'" not in imported
    assert "'torch'" in imported


def test_packed_values_are_whole_again():
    value = {"a": [1, None, "#1", "##", "\u2028"], "b": {"a": [1, None, "#1", "##", "\u2028"]}}
    assert unpacked(packed(value)) == value
    assert packed(value).count("[") == 1
