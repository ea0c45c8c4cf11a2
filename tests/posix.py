"""The mark of tests that need what only POSIX systems have (Linux, macOS), not Windows."""

import os

import pytest

needs_posix = pytest.mark.skipif(
    os.name != "posix",
    reason="needs POSIX: signals such as SIGKILL, pipes with names, links, or locks of folders",
)
