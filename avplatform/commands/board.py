"""`avplatform board`: the curves of a folder's runs in trackio's dashboard, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.commands.runs import CONFIG, folders_with
from avplatform.config.run import TRACKERS
from avplatform.config.values import flat, load_yaml
from avplatform.models.checks import in_range
from avplatform.models.errors import AVError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.runs.folder import RunFolder

PROJECT = "runs"
"""The name of the project in the dashboard."""
ABOUT = ("event", "epoch", "step", "split")
LOOK = 5.0
"""Seconds between two looks for new records."""
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "GRADIO_SHARE")
"""Settings that would send the curves to another machine."""


@dataclass(kw_only=True)
class BoardOptions:
    """Show the curves of a folder's runs in a browser, also while they train; Ctrl-C ends it.

    It needs trackio (the extra `track`), and no network. The runs stay as they are.
    """

    folder: Annotated[str, tyro.conf.Positional] = "runs"
    """folder of run folders"""
    port: int | None = None
    """port on this machine; default: the first free one from 7860 on"""
    open: bool = True
    """open the page in the browser"""


def run(args: list[str], prog: str) -> int:
    """Show the board until Ctrl-C ends it."""
    options = parse_flags(BoardOptions, args, prog)
    if options.port is not None:
        in_range(options, "port", 1, 65535)
    if not any(True for _ in folders_with(options.folder, CONFIG)):
        raise UsageError(f"there is no run in {options.folder}; give a folder of run folders")
    if importlib.util.find_spec(str(TRACKERS["trackio"])) is None:
        raise UsageError('the board needs trackio; pip install "avplatform[track]"')
    console = Console()
    with tempfile.TemporaryDirectory(prefix="avplatform-board-") as store, _here(store):
        import trackio

        board = Board(expanded(options.folder))
        count = board.update()
        console.note(f"{counted(len(board.sent), 'run')}, {counted(count, 'record')}")
        try:
            server, *_ = trackio.show(
                PROJECT,
                open_browser=options.open,
                block_thread=False,
                host="127.0.0.1",
                share=False,
                server_port=options.port,
            )
        except OSError as error:
            raise UsageError(f"the board cannot be shown: {error}; give another --port") from None
        try:
            console.note("Ctrl-C ends it")
            while True:
                time.sleep(LOOK)
                board.update()
        except KeyboardInterrupt:
            return 0
        finally:
            server.close()


@dataclass
class Board:
    """Copies the records of the runs in a folder to trackio's store, each of them once."""

    folder: Path
    sent: dict[Path, int] = field(default_factory=dict)
    """By run, how many records were copied."""

    def update(self) -> int:
        """Copy what is new, and return how many records that was."""
        return sum(map(self._copy, folders_with(self.folder, CONFIG)))

    def _copy(self, place: Path) -> int:
        import trackio

        records = RunFolder(place).records()
        # A resumed run takes some steps again, to the same values; its file is shorter meanwhile.
        before = min(self.sent.get(place, 0), len(records))
        new, known = records[before:], place in self.sent
        self.sent[place] = len(records)
        if not new and known:
            return 0
        name = place.relative_to(self.folder).as_posix() if place != self.folder else place.name
        run = trackio.init(
            PROJECT,
            name=name,
            resume="allow",
            config=None if known else _options(place),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        for record in new:
            if values := _values(record):
                run.log(values, step=record.get("step"))
        run.finish()
        return len(new)


def _values(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record, named as the trackers name them: train/loss, test/..."""
    group = {"step": "train", "epoch": record.get("split"), "test_epoch": "test"}
    named = group.get(str(record.get("event")))
    return {
        f"{named}/{name}": value
        for name, value in record.items()
        if named and name not in ABOUT and isinstance(value, (int, float))
    }


def _options(place: Path) -> dict[str, Any]:
    """Return the options of a run; none where its config.yaml cannot be read."""
    with contextlib.suppress(AVError):
        return {name: value for name, value in flat(load_yaml(place)).items() if value is not None}
    return {}


@contextlib.contextmanager
def _here(store: str) -> Iterator[None]:
    """Let trackio, which reads its settings when it is imported, keep everything in a folder."""
    kept = {name: os.environ.pop(name, None) for name in ELSEWHERE}
    kept["TRACKIO_DIR"] = os.environ.get("TRACKIO_DIR")
    os.environ["TRACKIO_DIR"] = store
    try:
        yield
    finally:
        os.environ.pop("TRACKIO_DIR")
        os.environ.update({name: value for name, value in kept.items() if value is not None})
