"""The Dockerfile fits the package. It was not built: no test here has Docker."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.import_graph import BESIDE, PACKAGE

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def steps(text):
    """Return the instructions of a Dockerfile as (name, rest of the line)."""
    joined = re.sub(r"\\\n", " ", text)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.fixture(scope="module")
def dockerfile():
    return steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def all_of(dockerfile, name):
    return [rest for step, rest in dockerfile if step == name]


def test_it_starts_from_a_python_that_the_package_supports(dockerfile):
    arguments = dict(shlex.split(rest)[0].split("=") for rest in all_of(dockerfile, "ARG"))
    assert f"Programming Language :: Python :: {arguments['PYTHON']}" in PROJECT["classifiers"]
    assert all_of(dockerfile, "FROM") == ["python:${PYTHON}-slim"]
    assert arguments["TORCH_INDEX"] == ""  # an argument decides between CPU and CUDA
    assert set(arguments["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


def test_it_installs_torch_as_the_package_wants_it(dockerfile):
    (line,) = [rest for rest in all_of(dockerfile, "RUN") if "TORCH_INDEX" in rest]
    wanted = [text for text in PROJECT["dependencies"] if text.startswith("torch")]
    assert re.findall(r'"(torch[^"]*)"', line) == wanted
    assert "${TORCH_INDEX:+--index-url ${TORCH_INDEX}}" in line


def test_it_copies_all_that_a_build_of_the_package_reads(dockerfile):
    copied = [word for rest in all_of(dockerfile, "COPY") for word in rest.split()[:-1]]
    wanted = {"pyproject.toml", "setup.py", PROJECT["readme"], *PROJECT["license-files"]}
    assert {*copied} == {*wanted, PACKAGE, *BESIDE} and all(
        (ROOT / name).exists() for name in copied
    )
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in kept and {line[1:] for line in kept if line.startswith("!")} == {*copied}


def test_it_does_not_run_as_root_and_starts_a_command_of_the_package(dockerfile):
    names = [step for step, _ in dockerfile]
    assert all_of(dockerfile, "USER") == ["user"] and names.index("USER") > names.index("COPY")
    (command,) = all_of(dockerfile, "CMD")
    assert json.loads(command)[0] in PROJECT["scripts"]
    assert names[-1] == "CMD" and "ENTRYPOINT" not in names  # a job gives its own command
