"""Distractors: label texts that no training clip holds, asked for so that a model can say no.

A model that is asked for a fixed list of labels only, each of which occurs often, does not learn
what a label is like that is nowhere. Distractors are such labels. They are words of the source of
the label embeddings, or random directions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.labels.cache import label_embeddings
from avplatform.models.errors import UsageError
from avplatform.models.texts.glove import words_of
from avplatform.models.texts.sources import open_source

POOL = 1000
"""Distractors that a run draws from, if its source has so many words."""
FREQUENT = 20_000
"""The words that are drawn from are the first so many of a source, whose rare words are names."""
SHORTEST = 3
"""Letters of the shortest word."""


def distractors(
    kind: Literal["words", "random"],
    *,
    source: str,
    own: Tensor,
    taken: Iterable[str],
    seed: int,
    **how: Any,
) -> Tensor:
    """Return the embeddings of the distractors of a run.

    Args:
        kind: words of the source, or random directions that are as long as the model's own label
            embeddings are on average.
        source: the source of the label embeddings.
        own: the model's own label embeddings, [C, E].
        taken: texts whose words are left out, because clips may hold what they name.
        seed: what is drawn is a function of the seed.
        how: arguments of `label_embeddings`.

    Shape: [N, E], N at most `POOL`.

    Raises:
        UsageError: words are asked for, but the source has no list of them, or too few.
        DataError: the source cannot be read.
    """
    draw = torch.Generator().manual_seed(seed)
    if kind == "random":
        directions = F.normalize(torch.randn(POOL, own.shape[1], generator=draw), dim=1)
        return directions * own.detach().float().norm(dim=1).mean().cpu()
    opened = open_source(source, **how)
    if opened.words is None:
        raise UsageError(
            f"labels.distractors: '{source}' has no list of words; set labels.distractor_texts "
            "random, or leave distractors out"
        )
    gone = {word for text in taken for word in words_of(text)}
    plain = (w for w in opened.words() if w.isascii() and w.isalpha() and len(w) >= SHORTEST)
    words = [word for word in list(plain)[:FREQUENT] if word.lower() not in gone]
    if not words:
        raise UsageError(
            f"labels.distractors: '{source}' knows no word beyond those of the classes; set "
            "labels.distractor_texts random, or leave distractors out"
        )
    chosen = torch.randperm(len(words), generator=draw)[:POOL].tolist()
    return label_embeddings([words[n] for n in chosen], source, **how).values.float()
