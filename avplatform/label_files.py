"""Label embeddings from files: arrays, tensors, or GloVe text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.errors import DataError
from models.label_embeddings import glove_embedder
from models.official.checkpoint_file import read_tensor

TENSOR_FILES = (".safetensors", ".pt", ".pth", ".pkl")


def read_label_embeddings(path: str | Path, texts: Sequence[str]) -> Tensor:
    """Return label embeddings [C, E] from .npy, .safetensors, .pt, .pth or .pkl, or of `texts` from a GloVe text file.

    Nothing of a file is run. Copies of one table for every clip, [B, C, E], become that table.

    Raises:
        DataError: not one array of finite numbers of that shape, or copies that differ.
    """
    path = Path(path)
    if path.suffix == ".npy":
        values = _array(path)
    elif path.suffix in TENSOR_FILES:
        values = read_tensor(path)
    else:
        return glove_embedder(path)(texts)
    if not values.is_floating_point() or not bool(torch.isfinite(values).all()):
        raise DataError(f"{path} holds {values.dtype} values that are no label embeddings; give finite numbers")
    if values.ndim == 3 and len(values):
        if not bool((values == values[0]).all()):
            raise DataError(f"{path} holds {len(values)} tables of label embeddings that differ; give one, [C, E]")
        values = values[0]
    if values.ndim != 2:
        raise DataError(f"{path} has shape {list(values.shape)}; label embeddings are [C, E], or equal copies [B, C, E]")
    if len(values) != len(texts):
        raise DataError(f"{path} holds {len(values)} label embeddings for {len(texts)} classes")
    return values.contiguous()


def _array(path: Path) -> Tensor:
    try:
        # Mapped, so that a header that claims more than the file holds takes no memory.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise DataError(f"{path} holds no array of floating-point numbers; save one with numpy.save")
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no whole .npy file ({' '.join(str(error).split())[:200]})") from None
