"""The networks that a recipe names: the input that each reads per segment, and its features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avplatform.features import mel, soundnet
from avplatform.features.image_networks import load_frames_network, load_maps_network
from avplatform.features.media import FrameSize
from avplatform.features.sampling import SAMPLE_RATE, split_waveform
from avplatform.features.teachers import CLAP_PINNED, CLIP_PINNED, CLAPTeacher, CLIPTeacher, Teacher
from avplatform.features.vggish import Postprocessor, read_vggish
from avplatform.features.weights import Weights, find_weights, weights_folder
from avplatform.models.checkpoint.file import read_checkpoint
from avplatform.models.errors import DataError, one_line

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
MOTION_FRAMES = 8
MOTION_SIZE = FrameSize(height=112, width=112)


@dataclass(kw_only=True)
class Backbone:
    """A network that is ready to run.

    `run` turns a batch of items into float32 features. An item is the input for one feature: an
    image of `size` (uint8), eight images for motion, or one of the arrays, one per segment, that
    `items` cuts a waveform at `rate` into.
    """

    width: int
    run: Callable[[Tensor], Tensor]
    source: dict[str, Any]
    """Where the weights come from: the file or hub id, and the checksum of their values."""
    size: FrameSize | None = None
    map_size: tuple[int, int] | None = None
    rate: int = 0
    items: Callable[[np.ndarray, int], np.ndarray] | None = None
    teacher: Teacher | None = None
    """The model behind the features, where it also embeds texts (CLIP, CLAP)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one feature: [width], or [*map_size, width]."""
        return (*(self.map_size or ()), self.width)


@dataclass(kw_only=True)
class Where:
    """Where and in which precision networks run, and which weights the user gave."""

    device: torch.device
    dtype: torch.dtype
    weights: Weights

    def put(self, network: nn.Module) -> nn.Module:
        """Move a network to the device for inference, in the channels-last memory format."""
        network = network.eval().requires_grad_(False).to(self.device, self.dtype)
        dims = {value.ndim for value in network.parameters()}
        if 5 in dims:
            return network.to(memory_format=torch.channels_last_3d)
        return network.to(memory_format=torch.channels_last) if 4 in dims else network


def audio_backbone(name: str, where: Where) -> Backbone:
    """Return the backbone of the audio stream.

    Raises:
        DataError: the weights are missing (the message says where they are published) or wrong.
    """
    kind, _, inner = name.partition(":")
    if kind == "clap":
        clap = CLAPTeacher(
            _model(where, "clap", "audio", inner or CLAP_PINNED), device=where.device
        )
        return Backbone(
            width=int(clap.model.config.projection_dim),
            run=lambda items: _seen_by(clap, items, where),
            source=_source(clap.model, model=_public(clap.name)),
            rate=SAMPLE_RATE,
            items=lambda samples, segments: split_waveform(_filled(samples, segments), segments),
            teacher=clap,
        )
    file = find_weights(where.weights, "soundnet8" if kind == "soundnet8" else "vggish", "audio")
    if kind == "soundnet8":
        network: Any = soundnet.read_soundnet(file, weights_folder(where.weights))
        rate, items = soundnet.RATE, _seconds(soundnet.RATE)
    else:
        network, rate, items = read_vggish(file), mel.RATE, mel.patches
    source, pca = _source(network, file=file.name), None
    if kind == "vggish-pca":
        parameters = find_weights(where.weights, "vggish-pca")
        pca = Postprocessor(parameters)
        source["pca"] = {
            "file": parameters.name,
            "sha256": weights_digest({"vectors": pca.vectors, "means": pca.means}),
        }
    moved = where.put(network)

    def run(items: Tensor) -> Tensor:
        out = moved(items.to(where.dtype)).float()
        return out if pca is None else pca(out)

    width = network.width
    return Backbone(width=width, run=run, source=source, rate=rate, items=items)


def visual_backbone(name: str, where: Where) -> Backbone:
    """Return the backbone of the visual stream.

    Raises:
        DataError: the weights are missing (the message says where they are published) or wrong.
        UsageError: timm has no such model.
    """
    kind, _, inner = name.partition(":")
    if kind == "clip":
        clip = CLIPTeacher(
            _model(where, "clip", "visual", inner or CLIP_PINNED), device=where.device
        )
        side = clip.input_size

        def see(items: Tensor) -> Tensor:
            pixels = items.permute(0, 3, 1, 2).float().div(255)
            return nn.functional.normalize(_seen_by(clip, pixels, where), dim=-1)

        return Backbone(
            width=int(clip.model.config.projection_dim),
            run=see,
            source=_source(clip.model, model=_public(clip.name)),
            size=FrameSize(height=side, width=side),
            teacher=clip,
        )
    load = load_maps_network if kind == "vgg19-pool5" else load_frames_network
    loaded = load(inner or "vgg19.tv_in1k", kind, where.weights)
    source = {**loaded.source, **_source(loaded.network)}
    network = where.put(loaded.network)

    def run(items: Tensor) -> Tensor:
        pixels = _normalised(items, loaded.config["mean"], loaded.config["std"], where)
        out = network(pixels).float()
        return out.permute(0, 2, 3, 1) if loaded.map_size else out

    return Backbone(
        width=loaded.width, run=run, source=source, size=loaded.size, map_size=loaded.map_size
    )


def motion_backbone(name: str, where: Where) -> Backbone:
    """Return the backbone of motion: eight frames of 112 x 112 per segment, stretched, not cropped.

    Raises:
        DataError: the weights are missing (the message says where they are published) or wrong.
    """
    from torchvision.models.video import r2plus1d_18

    file = find_weights(where.weights, name, "motion")
    network = r2plus1d_18(weights=None)
    tensors = read_checkpoint(file).tensors
    tensors = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
    network.fc = nn.Identity()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(
            f"{file} does not hold the weights of {name} ({one_line(error, 160)})"
        ) from None
    source = _source(network, file=file.name)
    moved = where.put(network)

    def run(items: Tensor) -> Tensor:
        batch = items.shape[0]
        pixels = _normalised(items.flatten(0, 1), KINETICS_MEAN, KINETICS_STD, where)
        clips = pixels.unflatten(0, (batch, MOTION_FRAMES)).transpose(1, 2)  # (B, 3, 8, 112, 112)
        return moved(clips.contiguous(memory_format=torch.channels_last_3d)).float()

    return Backbone(width=512, run=run, source=source, size=MOTION_SIZE)


def _normalised(
    items: Tensor, mean: tuple[float, ...], std: tuple[float, ...], where: Where
) -> Tensor:
    """Normalise images: uint8 [B, H, W, 3] -> [B, 3, H, W], with channels last in memory."""
    scale = torch.tensor([1 / (255 * value) for value in std], device=items.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=items.device)
    return (items.float() * scale - shift).to(where.dtype).permute(0, 3, 1, 2)


def _seconds(rate: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function that cuts a waveform into seconds and pads it with silence."""

    def cut(samples: np.ndarray, segments: int) -> np.ndarray:
        padded = np.zeros(segments * rate, np.float32)
        padded[: min(len(samples), len(padded))] = samples[: len(padded)]
        return padded.reshape(segments, rate)

    return cut


def _filled(samples: np.ndarray, segments: int) -> np.ndarray:
    """Pad a sound that ends well before its clip with silence.

    A sound that differs from its clip by up to half a second is left as it is: it is then cut
    evenly, as VALOR cuts it.
    """
    length = segments * SAMPLE_RATE
    if abs(len(samples) - length) <= SAMPLE_RATE // 2:
        return samples
    return _seconds(SAMPLE_RATE)(samples, segments).reshape(-1)


def _seen_by(teacher: Teacher, items: Tensor, where: Where) -> Tensor:
    with torch.autocast(where.device.type, where.dtype, enabled=where.dtype != torch.float32):
        return torch.from_numpy(teacher.segment_features(items.cpu().numpy()))


def _model(where: Where, kind: str, stream: str, name: str) -> str:
    return str(where.weights.get(kind) or where.weights.get(stream) or name)


def _source(network: nn.Module, **known: str) -> dict[str, Any]:
    """Return the source of a network's weights; call it before the precision is changed."""
    return {**known, "sha256": weights_digest(network.state_dict())}


def _public(name: str) -> str:
    """Return a hub id unchanged, and of a folder only its name.

    The result is stored with the features, and may be published with them.
    """
    return Path(name).resolve().name if Path(name).is_dir() else name


def weights_digest(tensors: dict[str, Tensor]) -> str:
    """Return a checksum of the float32 values of weights, whatever the format of their file."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        values = value.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()
