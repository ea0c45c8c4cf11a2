"""The pieces of a store, made by the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from avplatform.base.machine import make_accelerator
from avplatform.base.places import Remote, located
from avplatform.features.extractor import Extractor
from avplatform.features.pieces import Long, Pieces
from avplatform.features.sources import Catalogue
from avplatform.models.errors import UsageError
from avplatform.scale.child import Work, check_shared
from avplatform.scale.engine import share
from avplatform.scale.options import EngineOptions

Made = list[tuple[str, str]]


def spread_pieces(
    make: Callable[..., Extractor],
    options: EngineOptions,
    accelerator: Accelerator,
    *,
    cpu: bool = False,
) -> Callable[[Pieces, Sequence[Path | Remote], Callable[[], None]], Made]:
    """Return what `extract` calls to have pieces made by the nodes of a cluster.

    Args:
        make: returns the extractor for a `device`; its weights lie at the same paths on all nodes.
        options: the cluster.
        accelerator: of this process; its precision is that of all nodes.
        cpu: the networks stay on the CPU.

    Raises:
        UsageError: this is one of several processes that a launcher started.
    """
    if accelerator.num_processes > 1:
        raise UsageError("--engine ray shares the work itself; start one process, not a launcher")
    precision = str(accelerator.mixed_precision)

    def spread(pieces: Pieces, files: Sequence[Path | Remote], advance: Callable[[], None]) -> Made:
        maker = PieceMaker(
            make=make,
            catalogue=pieces.catalogue,
            segments=pieces.segments,
            long=pieces.long,
            work=pieces.work,
            made_by=pieces.made_by,
            cpu=cpu,
            precision=precision,
            threads=options.worker_cpus,
        )
        items: list[dict[str, Any]] = [
            {"key": str(index), "name": str(file), "piece": pieces.name(file)}
            for index, file in enumerate(files)
        ]
        answers = share(maker, items, options, told=lambda *_: advance(), cpu=cpu)
        found = [(item["name"], answers[item["key"]]) for item in items]
        return [(name, answer.text) for name, answer in found if answer.status == "bad"]

    return spread


@dataclass(kw_only=True)
class PieceMaker:
    """Makes, in a child process of a node, what turns a file into its piece."""

    make: Callable[..., Extractor]
    catalogue: Catalogue
    segments: int
    long: Long
    work: Path | Remote
    made_by: dict[str, Any]
    cpu: bool
    precision: str
    threads: int

    def __call__(self) -> Work:
        """Load the networks, and check that they are those of the other nodes."""
        if isinstance(self.work, Path):
            check_shared(self.work)
        accelerator = make_accelerator(cpu=self.cpu, precision=self.precision, threads=self.threads)
        extractor = self.make(device=accelerator.device)
        pieces = Pieces(self.work, extractor, self.catalogue, self.segments, self.long)
        if pieces.made_by != self.made_by:
            raise UsageError("the weights on a node differ from the driver's; give all the same")
        return partial(_make_piece, pieces)


def _make_piece(pieces: Pieces, item: dict[str, Any]) -> str:
    file, name = located(item["name"]), item["piece"]
    if name is not None and (pieces.work / name).is_file():  # its row was lost with a node
        return ""
    if not isinstance(file, Remote) and pieces.name(file) != name:
        raise UsageError(f"{file} is not the same file on all nodes; give them one shared folder")
    pieces.make(file)
    return ""
