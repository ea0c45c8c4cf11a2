"""Class texts to vectors: the shipped GloVe table, or GloVe files of any width.

Words of a text are lower-cased, split at white space, hyphens, underscores, brackets and commas, and their vectors are
averaged. Source: LEAP (ECCV 2024), section 3.3 (GloVe: Pennington et al. 2014).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from models.errors import DataError, UsageError

SHIPPED_TABLE = Path(__file__).with_name("glove_6b_50d.safetensors")

LabelEmbedder = Callable[[Sequence[str]], Tensor]
"""Texts to label embeddings [C, E]; other text encoders implement the same call."""


def glove_embedder(path: str | Path | None = None) -> LabelEmbedder:
    """Return an embedder over a GloVe file, or over the shipped 50-d table of all LLP and AVE class words.

    Example:
        >>> glove_embedder()(["dog", "acoustic guitar"]).shape
        torch.Size([2, 50])
    """

    def embed(texts: Sequence[str]) -> Tensor:
        wanted = {word for text in texts for word in words_of(text)}
        table = shipped_vectors() if path is None else read_glove(path, wanted)
        return embed_texts(texts, table, source="the shipped GloVe table" if path is None else str(path))

    return embed


def embed_texts(texts: Sequence[str], table: dict[str, np.ndarray], *, source: str) -> Tensor:
    """Return the mean word vector of each text.

    Shape: C texts -> [C, E].

    Raises:
        DataError: a text without words, or a word that the table lacks; names the word, the text and the source.
    """
    rows = []
    for text in texts:
        words = words_of(text)
        if not words:
            raise UsageError(f"the label text '{text}' holds no word; give each class at least one")
        missing = [word for word in words if word not in table]
        if missing:
            raise DataError(
                f"{source} has no vector for '{missing[0]}' (label text '{text}'); use another word, or a GloVe file that "
                "has it (--labels.embeddings FILE)"
            )
        rows.append(np.mean([table[word] for word in words], axis=0, dtype=np.float64))
    return torch.from_numpy(np.stack(rows)).float()


def words_of(text: str) -> list[str]:
    """Split a class text into the words that are looked up.

    Example:
        >>> words_of("Fixed-wing aircraft, airplane")
        ['fixed', 'wing', 'aircraft', 'airplane']
        >>> words_of("Frying_(food)")
        ['frying', 'food']
    """
    return re.sub(r"[-_(),]", " ", text.lower()).split()


@cache
def shipped_vectors() -> dict[str, np.ndarray]:
    """Return the shipped word vectors (GloVe 6B, 50-d, public domain)."""
    with safe_open(SHIPPED_TABLE, framework="np") as file:
        words = json.loads(file.metadata()["words"])
        return dict(zip(words, file.get_tensor("vectors"), strict=True))


def read_glove(path: str | Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read the vectors of some words from a GloVe text file ("word 0.1 0.2 ..." a line), of any width.

    Raises:
        DataError: no such file, a line that is not numbers, or lines of different widths.
    """
    path = Path(path)
    found: dict[str, np.ndarray] = {}
    width: int | None = None
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                word, _, rest = line.rstrip("\n").partition(" ")
                if number > 1 and word not in wanted:
                    continue
                vector = np.asarray(rest.split(), dtype=np.float32)
                if width is None:
                    width = len(vector)
                if len(vector) != width or not width:
                    raise DataError(f"{path}, line {number}: {len(vector)} numbers where the first line has {width}")
                if word in wanted:
                    found[word] = vector
                if len(found) == len(wanted):
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the GloVe file {path} cannot be read: {error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}, line {number}: not a word and numbers; give a GloVe text file") from None
    return found
