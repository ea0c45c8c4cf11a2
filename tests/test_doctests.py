"""The examples in docstrings give what they show, run in the modules that the platform uses."""

import doctest
import importlib
import types
from pathlib import Path

import pytest

from tests.import_graph import modules

ROOT = Path(__file__).resolve().parent.parent
WITH_EXAMPLES = [
    *(name for name, file in modules(ROOT).items() if ">>> " in file.read_text("utf-8")),
    "tests.import_graph",
]


def test_there_are_examples():
    assert len(WITH_EXAMPLES) > 10


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_a_wrong_example_is_found():
    module = types.ModuleType("wrong", "Example:\n    >>> 1 + 1\n    3\n")
    assert doctest.testmod(module, report=False, verbose=False).failed == 1
