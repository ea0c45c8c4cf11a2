"""Files of label embeddings [C, E].

The formats are .safetensors, with the texts in its metadata, and .npy, with the texts in a .json
file beside it. Tensors that others pickled (.pt, .pth, .pkl) are read without running their code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avplatform.models.errors import DataError, UsageError, counted, nearest, one_line
from avplatform.models.files import save_array, save_tensors, write_atomic
from avplatform.models.paths import expanded

TENSOR = "label_embeddings"
SUFFIXES = (".safetensors", ".npy")
PICKLED = (".pt", ".pth", ".pkl")
READABLE = (*SUFFIXES, *PICKLED)
TEXT_KEYS = ("text", "label_texts", "labels", "classes")
"""Keys under which files from elsewhere may list the texts of their rows; ours is "texts"."""


@dataclass
class LabelEmbeddings:
    """Label embeddings, their texts, and where they come from.

    `classes` are other names of the rows, which files from elsewhere may have.

    Shape: values [C, E], one row per text.
    """

    values: Tensor
    texts: list[str] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    def rows_for(self, texts: Sequence[str], *, place: str) -> Tensor:
        """Return the rows of some texts; if no texts are stored, return all rows in their order.

        A text without a row of its own may differ from a stored text, or from a class name, in
        capital letters and underscores.

        Raises:
            DataError: a text has no row, or the numbers of rows and texts differ; names `place`.
        """
        if self.texts:
            at = {text: row for row, text in reversed(list(enumerate(self.texts)))}
            other = self._other_spellings()
            rows = [at.get(text, other.get(_folded(text))) for text in texts]
            missing = [text for text, row in zip(texts, rows, strict=True) if row is None]
            if missing:
                raise DataError(
                    f"{place} has no row for the label text '{missing[0]}'"
                    f"{nearest(missing[0], self.texts)} ({len(missing)} of {len(texts)} texts are "
                    "missing); make it with `avplatform embed-labels`"
                )
            return self.values[rows]
        if len(self.values) != len(texts):
            raise DataError(
                f"{place} has {counted(len(self.values), 'row')} and no texts, "
                f"but there are {counted(len(texts), 'label text')}"
            )
        return self.values

    def _other_spellings(self) -> dict[str, int]:
        """Return the row of every folded text and class name that stands for one row only."""
        found: dict[str, int] = {}
        for names in (self.classes, self.texts):
            folded = [_folded(name) for name in names]
            found |= {name: row for row, name in enumerate(folded) if folded.count(name) == 1}
        return found


def _folded(text: str) -> str:
    """Return a text in small letters, with spaces for underscores."""
    return " ".join(text.replace("_", " ").split()).casefold()


def write_label_file(path: str | Path, embeddings: LabelEmbeddings) -> Path:
    """Write label embeddings completely or not at all, as .safetensors or .npy by the suffix.

    Raises:
        UsageError: the path has another suffix.
        DataError: the file cannot be written.
    """
    path = expanded(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"label embeddings are written as {' or '.join(SUFFIXES)}, not '{path.name}'"
        )
    values = embeddings.values.detach().float().cpu().contiguous()
    about = {"texts": embeddings.texts, "source": embeddings.source}
    try:
        if path.suffix == ".npy":
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            write_atomic(path.with_suffix(".json"), text)
            return write_atomic(path, lambda file: save_array(values.numpy(), file))
        metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}
        return write_atomic(path, lambda file: save_tensors({TENSOR: values}, file, metadata))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot write {path}: {reason}") from None


def read_label_file(path: str | Path) -> LabelEmbeddings:
    """Read label embeddings, with their texts and source if the file has them.

    A .safetensors file from elsewhere must hold a single tensor, or one called "label_embeddings".
    Its metadata may hold the texts under another name (`TEXT_KEYS`), `classes`, and a `source` that
    is plain text.
    Equal copies of one table, one per clip [B, C, E], are read as that table.

    Raises:
        DataError: the file is missing or damaged, or its content is not [C, E] finite numbers with
            C texts.
    """
    path = expanded(path)
    try:
        values, about = _read(path)
    except (
        *(OSError, SafetensorError, ValueError, EOFError, SyntaxError, TypeError),
        *(OverflowError, TokenError, RecursionError),
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the label embeddings {path} cannot be read: {one_line(error)}") from None
    if values.ndim == 3 and len(values):
        if not bool((values == values[0]).all()):
            raise DataError(
                f"{path} holds {len(values)} tables of label embeddings that differ; "
                "give one, [C, E]"
            )
        values = values[0]
    theirs = [about[key] for key in TEXT_KEYS if isinstance(about.get(key), list)]
    texts: Any = about.get("texts") or next(iter(theirs), [])
    source: Any = about.get("source") or {}
    if isinstance(source, str):
        source = {"kind": "file", "said": source}
    if values.ndim != 2 or 0 in values.shape or not values.is_floating_point():
        raise DataError(
            f"{path} holds {list(values.shape)} {values.dtype}; "
            "label embeddings are floats [classes, width]"
        )
    if not values.isfinite().all():
        raise DataError(f"{path} holds NaN or infinite numbers")
    if (
        not isinstance(texts, list)
        or not all(isinstance(text, str) for text in texts)
        or not isinstance(source, dict)
    ):
        raise DataError(f"the metadata of {path} must be a list of `texts` and a mapping `source`")
    if texts and len(texts) != len(values):
        raise DataError(
            f"{path} has {counted(len(values), 'row')} but {counted(len(texts), 'text')}"
        )
    classes: Any = about.get("classes")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    known = classes if named and len(classes) == len(values) else []
    return LabelEmbeddings(values.float(), texts, source, known)


def _read(path: Path) -> tuple[Tensor, dict[str, Any]]:
    if path.suffix in PICKLED:
        from avplatform.models.checkpoint.file import read_tensor

        return read_tensor(path), {}
    return _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)


def _read_npy(path: Path) -> tuple[Tensor, dict[str, Any]]:
    beside = path.with_suffix(".json")
    about = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    with path.open("rb") as file:
        # Without the prefix, NumPy would try to read the file as an archive or a pickle.
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            raise DataError(f"the label embeddings {path} cannot be read: it is not a .npy file")
    # Mapped, so that a header that claims more than the file holds allocates no memory.
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise DataError(f"{path} holds no numbers; label embeddings are floats [classes, width]")
    values = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    return values, about if isinstance(about, dict) else {}


def _read_safetensors(path: Path) -> tuple[Tensor, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        name = TENSOR if TENSOR in names else names[0] if len(names) == 1 else None
        if name is None:
            raise DataError(f"{path} holds {len(names)} tensors, none called {TENSOR}")
        metadata = file.metadata() or {}
        return file.get_tensor(name), {key: _value(metadata[key]) for key in metadata}


def _value(text: str) -> Any:
    """Return a metadata value: JSON, or the text itself if another maker wrote none."""
    try:
        return json.loads(text)
    except ValueError:
        return text
