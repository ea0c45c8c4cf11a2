"""Pseudo-labels made by the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.machine import set_threads
from avplatform.models.errors import DataError, UsageError
from avplatform.pseudo_labels.make import Places, Spread
from avplatform.pseudo_labels.sources import Source
from avplatform.scale.child import Answer, Work, check_shared
from avplatform.scale.engine import share
from avplatform.scale.options import EngineOptions


def spread_labels(
    open_source: Callable[[], Source], options: EngineOptions, *, cpu: bool = False
) -> Spread:
    """Return what `make` calls to have labels made by the nodes of a cluster.

    Args:
        open_source: picklable function that opens the source; all nodes share its folder.
        options: the cluster.
        cpu: the source needs no GPU.
    """

    def spread(
        places: Places,
        videos: Sequence[tuple[str, np.ndarray]],
        limits: np.ndarray,
        told: Callable[[str, str | DataError], None],
    ) -> list[str | DataError]:
        maker = LabelMaker(
            open_source=open_source, places=places, limits=limits, threads=options.worker_cpus
        )
        items = [{"key": video, "name": video, "weak": weak} for video, weak in videos]
        answers = share(
            maker, items, options, told=lambda video, one: told(video, _made(one)), cpu=cpu
        )
        return [_made(answers[video]) for video, _ in videos]

    return spread


def _made(answer: Answer) -> str | DataError:
    return DataError(answer.text) if answer.status == "bad" else answer.text


@dataclass(kw_only=True)
class LabelMaker:
    """Opens the source in a child process of a node."""

    open_source: Callable[[], Source]
    places: Places
    limits: np.ndarray
    threads: int

    def __call__(self) -> Work:
        """Return what labels a video."""
        if isinstance(self.places.labels, Path):
            check_shared(self.places.labels)
        source = self.open_source()
        set_threads(self.threads)  # after it, as an accelerator sets them too

        def work(item: dict[str, Any]) -> str:
            try:
                return self.places.label(source, item["name"], item["weak"], self.limits)
            except OSError as error:
                raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None

        return work
