"""Writing safetensors files that others may read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file


def save_tensors(tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors or arrays to a safetensors file with the rights of any other new file.

    Departs: `safetensors` itself lets nobody but the owner read it, so that a model in a shared folder is of no use to others.

    Raises:
        OSError: the file cannot be made.
        SafetensorError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file({name: _plain(value) for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)


def _plain(value: Any) -> torch.Tensor:
    """Return a tensor as it is written; of an array a copy, as torch takes none that is read-only or turned round."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    return value.detach().cpu().contiguous()
