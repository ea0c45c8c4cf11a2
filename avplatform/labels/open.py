"""Other labels for a model that queries with label texts, embedded by the source of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.data.store.schema import BACKGROUND
from avplatform.labels.cache import label_embeddings
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.decoders import DECODERS, label_decoders
from avplatform.models.errors import DataError, UsageError
from avplatform.models.texts.files import LabelEmbeddings
from avplatform.models.texts.glove import words_of
from avplatform.models.texts.sources import POOLED, SOURCES


def embed_labels(
    model: AVModel, texts: Sequence[str], *, source: str | None = None
) -> LabelEmbeddings:
    """Return embeddings of label texts in the space of the model's own label embeddings.

    Args:
        model: a model that queries with label texts.
        texts: the labels.
        source: the source of the embeddings, as for `train --labels.embeddings`; default: the one
            of the model's training. It must embed the model's own texts as they were.

    Raises:
        UsageError: the decoder does not read label texts, the model's embeddings are learned, or
            the source is not the model's.
        DataError: the source cannot be read, or lacks a word.
    """
    check_open(model)
    given = source or source_of(model.config.label_source)
    pooled = given.partition(":")[0] in POOLED
    how: dict[str, Any] = {
        "pooling": model.config.label_source.get("pooling") if pooled else None,
        "prompts": model.config.label_source.get("prompts", ()),
    }
    own = label_embeddings(model.config.label_texts, given, **how)
    stored = model.label_embeddings
    assert stored is not None
    trained = stored.detach().float().cpu()
    values = own.values.float()
    if values.shape != trained.shape or not torch.allclose(values, trained, rtol=1e-2, atol=1e-3):
        raise UsageError(
            f"'{given}' embeds the model's own label texts differently from what it was trained "
            f"with ({_named(model.config.label_source)}), so other labels would be in another "
            "space; give the same source"
        )
    return label_embeddings(list(texts), given, **how)


def check_open(model: AVModel) -> None:
    """Raise UsageError, with the reason, unless the model can look for other labels."""
    kind = model.config.decoder._type
    if not DECODERS[kind].needs_labels:
        why = DECODERS[kind].closed or f"the decoder {kind} does not read label texts"
        raise UsageError(
            f"{why}, so it cannot look for other labels; train a model with "
            f"--decoder {label_decoders()}, or leave them out"
        )
    if model.config.learned_labels:
        raise UsageError(
            "the label embeddings of this model were learned with it, for its own classes only; to "
            "look for other labels, train with embeddings of texts (--labels.embeddings glove-50d)"
        )


def never_trained_on(config: AVModelConfig, labels: Sequence[str]) -> list[str]:
    """Return those of some labels that a model was never trained on.

    A label was trained on if a training clip held the class that it names: by the words of the
    class's name, of the name up to its first comma, or of its label text.
    """
    trained = set[str]()
    for name, text in zip(config.classes, config.label_texts or config.classes, strict=True):
        if config.training_clips.get(name, 1):
            trained |= {" ".join(words_of(known)) for known in (name, name.split(",")[0], text)}
    return [label for label in labels if " ".join(words_of(label)) not in trained]


def directions(known: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return label embeddings without the mean of the known ones, in unit length, known ones first.

    Shape: known [C, E], others [U, E] -> the same.
    """
    middle = known.mean(dim=0)
    return tuple(F.normalize(values - middle, dim=-1) for values in (known, *others))


def nearest_trained(
    model: AVModel, names: Sequence[str], labels: Tensor
) -> dict[str, tuple[str, float]]:
    """Return, for each label, the other class with the nearest text that the model was trained on.

    Args:
        model: a model that reads label texts.
        names: the labels.
        labels: their embeddings [U, E].

    Returns:
        name -> (class, cosine of both embeddings without the mean over the trained classes).
    """
    classes, own = model.config.classes, model.label_embeddings
    assert own is not None
    new = {BACKGROUND, *never_trained_on(model.config, classes)}
    rows = [n for n, name in enumerate(classes) if name not in new]
    known, asked = directions(own.detach().float()[rows], labels.detach().to(own.device).float())
    found = {}
    for name, cosines in zip(names, (asked @ known.T).tolist(), strict=True):
        others = [(c, classes[n]) for c, n in zip(cosines, rows, strict=True) if classes[n] != name]
        if others:
            cosine, nearest = max(others, key=lambda pair: pair[0])
            found[name] = nearest, cosine
    return found


def source_of(about: dict[str, Any]) -> str:
    """Return the source of label embeddings that a model's config records.

    Raises:
        UsageError: it records none that can embed other texts.
    """
    kind, name = about.get("kind"), about.get("name")
    if kind == "glove-50d":
        return kind
    files = [part for part in (about, *about.get("parts", ())) if part.get("kind") == "file"]
    if kind in SOURCES and kind != "learned" and name and not files:
        revision = about.get("revision")
        return f"{kind}:{name}@{revision}" if revision else f"{kind}:{name}"
    raise UsageError(
        f"the model's label embeddings come from {_named(about)}, which cannot embed other texts; "
        "name the source that they were made with: --embeddings SOURCE"
    )


def check_texts(found: LabelEmbeddings) -> None:
    """Raise DataError if two labels have the same embedding and so cannot be told apart."""
    values = found.values.double()
    for number, row in enumerate(values):
        same = [
            other
            for other in range(number)
            if torch.allclose(values[other], row, rtol=1e-6, atol=1e-9)
        ]
        if same:
            pair = f"'{found.texts[same[0]]}' and '{found.texts[number]}'"
            raise DataError(
                f"the labels {pair} have the same embedding, so they cannot be told apart; leave "
                "one out"
            )


def _named(about: dict[str, Any]) -> str:
    if not about:
        return "a source that is not recorded"
    kind, name = about.get("kind", "?"), about.get("name")
    return f"{kind} '{name}'" if name else str(kind)
