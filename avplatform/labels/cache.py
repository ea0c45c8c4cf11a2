"""Label embeddings by source, with a cache for those that are slow to compute.

The key of an entry is made of the texts, the source, the checksums of its files, the pooling and
the library versions: a change of any of them makes a new entry. An entry is an ordinary file of
label embeddings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from avplatform.base.files import cache_root
from avplatform.base.locks import locked
from avplatform.models.errors import DataError
from avplatform.models.texts.files import LabelEmbeddings, read_label_file, write_label_file
from avplatform.models.texts.sources import LabelSource, open_source

CACHE_VERSION = 1


def label_embeddings(
    texts: Sequence[str],
    source: str,
    *,
    pooling: str | None = None,
    prompts: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> LabelEmbeddings:
    """Return the embeddings of label texts, with what they were made from.

    Args:
        texts: one text per class.
        source: one of the sources in `avplatform.models.texts.sources`.
        pooling: "cls" or "mean" instead of the source's own pooling.
        prompts: sentences with "{}" for the text, whose embeddings are averaged.
        cache_dir: where slow embeddings are kept; default: `labels` in the user's cache.

    Shape: C texts -> values [C, E].

    Raises:
        UsageError: the source is unknown; the message suggests the nearest one.
        DataError: the source cannot be read, or lacks a word.
    """
    texts = list(texts)
    opened = open_source(source, pooling=pooling, prompts=prompts)
    if not opened.slow:
        return _embed(texts, opened)
    folder = cache_dir or cache_root() / "labels"
    file = folder / f"{cache_key(texts, opened.provenance)}.safetensors"
    found = _kept(file, texts, opened.provenance)
    if found is not None:
        return found
    with ExitStack() as stack:
        # All processes of a run get here at once, and one of them embeds. A cache that cannot be
        # written only costs time.
        with suppress(OSError, DataError):
            stack.enter_context(locked(file.with_suffix(".lock")))
        found = _kept(file, texts, opened.provenance)
        if found is None:
            found = _embed(texts, opened)
            with suppress(DataError):
                write_label_file(file, found)
    return found


def cache_key(texts: Sequence[str], provenance: dict[str, Any]) -> str:
    """Return the name of the embeddings in the cache."""
    whole = json.dumps([CACHE_VERSION, list(texts), provenance], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _embed(texts: list[str], source: LabelSource) -> LabelEmbeddings:
    return LabelEmbeddings(source.embed(texts), texts, source.provenance)


def _kept(file: Path, texts: list[str], provenance: dict[str, Any]) -> LabelEmbeddings | None:
    """Return the embeddings in the cache, or None if they are missing or damaged."""
    try:
        found = read_label_file(file) if file.is_file() else None
    except DataError:
        return None
    return found if found and (found.texts, found.source) == (texts, provenance) else None
