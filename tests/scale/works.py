"""Work for child processes: what an item says."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from avplatform.models.errors import DataError, UsageError

MARK = "AVPLATFORM_TEST_MARK"
"""Environment variable by which a test knows its own processes."""


def begin():
    return work


def begin_wrongly():
    raise DataError("the weights are missing")


def begin_and_die():
    end_at_once()


def end_at_once():
    """End this process without a chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)


def work(item: dict[str, Any]) -> str:
    kind = item["kind"]
    if kind == "bad":
        raise DataError("cannot read it")
    if kind == "usage":
        raise UsageError("cannot write there")
    if kind == "bug":
        raise KeyError("lost")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "crash once":
        seen = Path(item["seen"])
        if not seen.exists():
            seen.touch()
            end_at_once()
    if kind == "end the worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # this process ends with it
    if kind == "leave":
        Path(item["seen"]).write_text(tempfile.mkdtemp())
        end_at_once()
    if kind == "memory":
        return str(len(bytearray(4 * 2**30)))
    if kind == "slow":
        time.sleep(60)
    return f"did {item['name']} in {os.getpid()}"


@dataclass
class PredictFailing:
    """Makes the work of `predict`, in which reading a video raises an error."""

    out: Path
    error: Exception

    def __call__(self):
        from avplatform.commands import predict
        from avplatform.scale.notes import Notes

        options = predict.PredictOptions(videos=(), model="none")
        predict.open_pipeline = lambda _: self
        notes = Notes(folder=self.out / ".done", made_by="tests")
        return predict.PredictMaker(options=options, out=self.out, notes=notes)()

    @property
    def config(self):
        return SimpleNamespace(batch_size=1)

    def read(self, video):
        raise self.error


def processes(mark: str, word: str) -> list[int]:
    """Return the processes of a test whose command line contains a word."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                mine = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
                named = word.encode() in (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mine and named:
                found.append(int(folder.name))
    return found
