"""Output for a person: progress bars on a terminal, plain lines in a log, tables at the end."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich.console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from avplatform.base.utf8 import print_anything


class Bar:
    """A progress bar, which shows nothing where there is no terminal."""

    def __init__(self, progress: Progress | None, task: TaskID = TaskID(0)) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, **shown: float) -> None:
        """Move on by `count`, and show the values of `shown` beside the bar."""
        if self._progress is not None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self._progress.update(self._task, advance=count, shown=text)

    def fraction(self, share: float) -> None:
        """Move to a share of the total, between 0 and 1."""
        if self._progress is not None:
            self._progress.update(
                self._task, completed=share * (self._progress.tasks[self._task].total or 1)
            )


class Console:
    """Prints to the standard output, on the main process only."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        print_anything()
        # A command in a notebook's cell writes to a terminal, but the cell keeps every line that a
        # bar draws again.
        terminal = False if "JPY_PARENT_PID" in os.environ else None
        self._rich = rich.console.Console(
            quiet=not enabled,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            force_terminal=terminal,
        )

    def note(self, text: str) -> None:
        """Print one line."""
        self._rich.print(text, markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int, done: int = 0) -> Iterator[Bar]:
        """Show a progress bar while the block runs (on terminals that can redraw a line only)."""
        if not self.enabled or not self._rich.is_terminal or self._rich.is_dumb_terminal:
            yield Bar(None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        with Progress(*columns, console=self._rich, transient=True) as progress:
            yield Bar(progress, progress.add_task(title, total=total, completed=done, shown=""))

    def epoch(self, record: dict[str, Any], *, chosen_by: tuple[str, float], best: bool) -> None:
        """Print one line about a finished epoch, marked with a star where it is the best.

        Args:
            record: the epoch's line of metrics.jsonl.
            chosen_by: name and value of the score that selects an epoch.
            best: whether it is the best epoch so far.
        """
        mark = " *" if best else ""
        name, value = chosen_by
        loss = record.get("loss", float("nan"))
        self.note(
            f"epoch {record['epoch']:>3}  step {record['step']:>6}  loss {loss:.4f}  "
            f"{record['split']} {name} {value:.2f}{mark}"
        )

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table; the first column is text, the others are numbers."""
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            first = index == 0
            table.add_column(column, justify="left" if first else "right", no_wrap=first)
        for row in rows:
            table.add_row(*row)
        self._rich.print(table)


def named(file: str, reason: str) -> str:
    """Return the reason with the name of its file in front, unless it contains the name already."""
    return reason if file in reason else f"{file}: {reason}"


def readable(path: str | Path) -> str:
    r"""Return a path, or a message that contains one, as one line of printable text.

    Bytes that are not UTF-8 and control characters become the replacement character.

    Examples:
        >>> readable("caf\udce9\n.mp4")
        'caf\ufffd\ufffd.mp4'
    """
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
