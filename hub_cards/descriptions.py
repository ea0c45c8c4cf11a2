"""Texts of the cards on tasks, encoders and decoders, and on the papers behind them."""

from __future__ import annotations

from typing import NamedTuple

from avplatform.models.contracts import Decoder, Encoder
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS


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


def about(task: str, encoder: str, decoder: str) -> tuple[str, list[str]]:
    """Return sentences on a task, an encoder and a decoder, and their papers' BibTeX entries."""
    named: tuple[tuple[str, type[Task | Encoder | Decoder] | None], ...] = (
        (task, TASKS.get(task)),
        (encoder, ENCODERS.get(encoder)),
        (decoder, DECODERS.get(decoder)),
    )
    sentences, citations = [], []
    for name, part in named:
        if part is None or not part.about:
            sentences.append(f"`{name}` was registered by another package.")
            continue
        paper = part.paper
        sentences.append(
            f"{part.about} ({paper.authors}, {paper.venue})." if paper else f"{part.about}."
        )
        if paper and paper.citation not in citations:
            citations.append(paper.citation)
    return " ".join(sentences), citations
