"""Text is UTF-8 whatever the locale is, and any text can be printed."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avplatform.base import utf8
from avplatform.cli import main
from avplatform.data.simulate.demo import make_demo
from avplatform.models.paths import expanded

ROOT = Path(__file__).resolve().parent.parent
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HF_HUB_OFFLINE": "1"}
SIZES = {"train": 8, "validation": 4, "test": 4}
OPTIONS = {"task": "avel", "max_steps": 1, "batch_size": 4, "cpu": True, "threads": 1}
OPTIONS |= {"precision": "no", "save_plots": False, "data": "données"}


def without_encoding(text: str) -> list[int]:
    """Return the lines of a program that read or write text in the encoding of the locale."""
    found = []
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        given = {keyword.arg for keyword in call.keywords}
        owner = getattr(getattr(call.func, "value", None), "id", "")
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        words = [node.value for node in call.args if isinstance(node, ast.Constant)]
        binary = any(isinstance(word, str) and len(word) < 4 and "b" in word for word in words)
        reads = name in ("read_text", "write_text", "TextIOWrapper", "fdopen") or (
            name == "open"
            and not binary
            and (words or not call.args)
            and owner not in ("os", "av", "Image", "wave", "tarfile")
        )
        runs = owner == "subprocess" and bool({"text", "universal_newlines"} & given)
        # A method of this name without arguments is one of our own classes.
        own = name == "open" and not call.args and not given
        if (reads or runs) and not own and "encoding" not in given:
            found.append(call.lineno)
    return found


@pytest.mark.parametrize("top", ["avplatform", "models", "tasks", "hub_cards", "examples"])
def test_every_text_file_names_its_encoding(top):
    found = {
        str(file): lines
        for file in sorted((ROOT / top).rglob("*.py"))
        if (lines := without_encoding(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_missing_encoding_is_found():
    text = "Path('x').read_text()\nopen('x')\nfile.open('a')\nfile.open('rb')\nos.open('x', 0)\n"
    assert without_encoding(text + "subprocess.run([], text=True)\n") == [1, 2, 3, 6]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_demo("avel", tmp_path / "données", sizes=SIZES)
    return tmp_path


def in_c_locale(*command: str, cwd: Path) -> str:
    env = {**os.environ, **C, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("ascii")


def test_a_run_of_a_utf8_locale_is_read_in_the_c_locale(folder):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items() if name in (
        "task", "max_steps", "batch_size", "threads", "precision", "data")]  # fmt: skip
    assert main(["train", *flags, "--cpu", "--no-save-plots", "--output-dir", "café"]) == 0
    content = json.loads((folder / "café" / "results.json").read_text(encoding="utf-8"))
    said = in_c_locale("-m", "avplatform", "eval", "café", "--cpu", "--json", "é.json", cwd=folder)
    again = json.loads((folder / "é.json").read_text(encoding="utf-8"))
    assert again["test"] == content["test"]
    assert "demo-avel-1" in said


def test_python_in_the_c_locale_takes_names_beyond_ascii(folder):
    code = f"from avplatform import train; print(train(output_dir='été', **{OPTIONS!r}).folder)"
    (folder / "program.py").write_text(code, encoding="utf-8")
    in_c_locale("program.py", cwd=folder)
    assert (folder / "été" / "results.json").is_file()


@pytest.mark.parametrize(("found", "again"), [("ISO-8859-1", True), ("UTF-8", False)])
def test_a_command_starts_again_in_utf8_mode_where_the_locale_is_not(monkeypatch, found, again):
    started = []
    monkeypatch.setattr(utf8.locale, "getencoding", lambda: found)
    monkeypatch.setattr(utf8.os, "execve", lambda *given: started.append(given))
    monkeypatch.delenv("PYTHONUTF8", raising=False)
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    utf8.start_in_utf8()
    assert bool(started) is (again and not sys.flags.utf8_mode)
    if started:
        program, args, env = started[0]
        assert [program, *args[1:]] == [sys.executable, *sys.orig_argv[1:]]
        assert env["PYTHONUTF8"] == "1" and env["PYTHONIOENCODING"] == f"{found}:backslashreplace"
    # The new process must not start a third one, even if a flag forbids the mode.
    monkeypatch.setenv("PYTHONUTF8", "1")
    started.clear()
    utf8.start_in_utf8()
    assert not started


def test_what_the_output_cannot_encode_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    utf8.print_anything()
    print("é 猫", flush=True)
    assert raw.getvalue() == b"\xe9 \\u732b\n"


def test_a_path_in_utf8_stays_as_it_is(tmp_path):
    assert expanded(tmp_path / "猫") == tmp_path / "猫"
