"""Texts of the cards on tasks, encoders and decoders, and on the papers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from avplatform.models.contracts import Decoder, Encoder, Publication
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS
from avplatform.tasks.strategies import strategies


class TaskText(NamedTuple):
    """A task's title, and the comment on the decisions in its example code."""

    title: str
    decisions: str


def segment_words(seconds: float) -> str:
    """Return what segments of this length are called."""
    return "one-second segments" if seconds == 1 else f"segments of {seconds:g} s"


def task_text(name: str) -> TaskText:
    """Return a task's texts; a task without a title is called by its name."""
    task = TASKS.get(name, Task)
    return TaskText(task.title or name, task.decisions)


def about(
    task: str,
    encoder: str,
    decoder: str,
    config: Mapping[str, Any],
    origins: Mapping[str, Any] | None = None,
) -> tuple[str, list[str]]:
    """Return sentences on a task, an encoder, a decoder and the training, and BibTeX entries.

    Args:
        task: the task.
        encoder: the encoder.
        decoder: the decoder.
        config: the model's config as a dictionary.
        origins: how the labels were refined that it was trained on, see `strategies`.
    """
    named: tuple[tuple[str, type[Task | Encoder | Decoder] | None], ...] = (
        (task, TASKS.get(task)),
        (encoder, ENCODERS.get(encoder)),
        (decoder, DECODERS.get(decoder)),
    )
    sentences: list[str] = []
    papers: list[Publication | None] = []
    for name, part in named:
        if part is None or not part.about:
            sentences.append(f"`{name}` was registered by another package.")
            continue
        sentences.append(_cited(part.about, part.paper))
        papers.append(part.paper)
    for sentence, paper in strategies(config, origins):
        sentences.append(_cited(sentence, paper))
        papers.append(paper)
    citations = dict.fromkeys(paper.citation for paper in papers if paper)
    return " ".join(sentences), list(citations)


def _cited(sentence: str, paper: Publication | None) -> str:
    return f"{sentence} ({paper.authors}, {paper.venue})." if paper else f"{sentence}."
