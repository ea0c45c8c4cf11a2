"""Progress bars are drawn only where a line can be drawn again."""

import os
import subprocess
import sys

import pytest

from tests.posix import needs_posix

SCRIPT = """
from avplatform.base.console import Console
console = Console()
with console.bar("videos", total=3) as bar:
    for _ in range(3):
        bar.advance()
console.note("done")
"""


def on_a_terminal(**environment):
    """Return what the script writes to a terminal."""
    import pty

    ours, theirs = pty.openpty()
    given = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "JPY_PARENT_PID")}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=theirs, env={**given, **environment}
    )
    assert process.wait() == 0
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # all is read
            part = b""
        if not part:
            break
        written += part
    os.close(ours)
    return written.decode()


@needs_posix
@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm-color", "JPY_PARENT_PID": "1"}, False),
    ],
    ids=["terminal", "dumb terminal", "cell of a notebook"],
)
def test_a_bar_is_drawn_where_a_line_can_be_drawn_again(environment, drawn):
    written = on_a_terminal(**environment)
    assert ("videos" in written) == drawn
    assert ("\x1b[" in written) == drawn
    assert written.endswith("done\r\n")
