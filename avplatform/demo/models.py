"""The models of a demo, which are opened once, and the timelines that they find in a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from avplatform.base.console import named, readable
from avplatform.labels.open import check_open
from avplatform.models.errors import UsageError
from avplatform.timeline.options import PipelineConfig
from avplatform.timeline.pipeline import Extractor, Pipeline, Timeline, pipeline
from avplatform.timeline.preview import Preview, preview
from avplatform.timeline.several import Opened
from avplatform.training_free.model import TRAINING_FREE

LABELS = ("siren", "beep", "wind", "green lamp")
"""Labels of the clips that the demo draws, for a model without classes of its own."""
KEPT = 8
"""Pairs of a model and labels that stay in memory."""


class Models:
    """The models that a demo offers.

    Args:
        names: run folders, model folders, hub ids or "training-free".
        config: windows and decisions.
        recipe: name of the recipe of the models' features; default: the recipe in their config.
        weights: files of the recipe's backbones; see `pipeline`.

    Raises:
        UsageError, DataError: a model cannot be opened; see `pipeline`.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        config: PipelineConfig,
        recipe: str | None = None,
        weights: Mapping[str, str | Path] | None = None,
    ) -> None:
        self.names, self.config = list(dict.fromkeys(names)), config
        self._recipe, self._weights = recipe, weights
        self._first: dict[str, Pipeline] = {}
        self._opened = lru_cache(KEPT)(self._open)
        opened = [self._takes_labels(name) for name in self.names]
        self.open_labels = any(opened)
        """Whether one of the models can look for labels that a visitor gives."""

    def timelines(
        self,
        video: Path,
        names: Sequence[str],
        *,
        labels: Sequence[str] = (),
        threshold: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> tuple[list[Timeline], Preview]:
        """Return the timelines of a video by some of the models, and its frames and sound.

        The features are extracted once for all models that read the same ones.

        Raises:
            UsageError: a model cannot look for the labels, or has no threshold.
            DataError: the file cannot be read.
        """
        found, read = [], dict[int, Opened]()
        for name in names:
            try:
                parse = self._opened(name, tuple(labels), threshold)
            except UsageError as error:
                reason = str(error)
                raise UsageError(named(name, reason) if len(names) > 1 else reason) from None
            key = id(parse.extractor)
            if key not in read:
                read[key] = parse.read(video, on_progress=on_progress)
            (timeline,) = parse.timelines([read[key]])
            timeline.video = readable(video.name)  # not where this machine keeps it
            found.append(timeline)
        info = next(iter(read.values())).info
        return found, preview(video, info, self.config.limits)

    def _takes_labels(self, name: str) -> bool:
        """Open a model, and return whether it can look for labels that are given."""
        parse = self._opened(name, (), None)
        if parse.training_free:
            return True
        try:
            check_open(parse.model)
        except UsageError:
            return False
        return True

    def _open(self, name: str, labels: tuple[str, ...], threshold: float | None) -> Pipeline:
        """Return a pipeline, whose model and extractor are those that were opened first."""
        config = self.config if threshold is None else replace(self.config, threshold=threshold)
        first = self._first.get(name)
        if first is not None and not first.training_free:
            if labels:
                check_open(first.model)
            return Pipeline(
                first.model,
                first.extractor,
                name=name,
                labels=labels or None,
                embeddings=None,
                config=config,
            )
        usual = LABELS if name == TRAINING_FREE else None  # it has no classes of its own
        parse = pipeline(
            name,
            labels=labels or usual,
            recipe=self._recipe,
            weights=self._weights,
            extractor=first.extractor if first else None,
            config=config,
        )
        if first is None:
            others = (other.extractor for other in self._first.values())
            alike = (other for other in others if _same(other, parse.extractor))
            parse.extractor = next(alike, parse.extractor)
            self._first[name] = parse
        return parse


def _same(one: Extractor, other: Extractor) -> bool:
    """Return whether two extractors make the same features."""
    facts = [(getattr(e, "features", e), getattr(e, "segment_seconds", 1.0)) for e in (one, other)]
    return facts[0] == facts[1]
