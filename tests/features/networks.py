"""Small networks with random weights, in the files that backbones are read from."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from avplatform.features.recipe import FeatureRecipe
from avplatform.features.vggish import CONVOLUTIONS, MAP

SMALL = FeatureRecipe(name="small", audio="vggish", visual="timm:test_resnet", frames_per_segment=2)


def vggish_file(path: Path, *, channels: int = 4, hidden: int = 16, width: int = 8) -> Path:
    """Weights of a narrower network under the published names; torch pickled the state dict."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / max(1, shape[-1]) ** 0.5

    tensors, below = {}, 1
    for place in CONVOLUTIONS:
        tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"] = (
            draw(channels, below, 3, 3),
            draw(channels),
        )
        below = channels
    sizes = [MAP * channels, hidden, hidden, width]
    for place, (before, after) in zip((0, 2, 4), zip(sizes, sizes[1:], strict=False), strict=True):
        tensors[f"embeddings.{place}.weight"], tensors[f"embeddings.{place}.bias"] = (
            draw(after, before),
            draw(after).abs(),
        )
    torch.save(tensors, path)
    return path


def timm_file(path: Path, name: str = "test_resnet", *, gain: float = 1.0) -> Path:
    """Random weights of a model of timm, with its classifier, as the Hub has them.

    A gain of the first convolution of a ResNet scales its features, which are small without.
    """
    torch.manual_seed(0)
    tensors = timm.create_model(name).state_dict()
    if gain != 1:
        tensors["conv1.0.weight"] *= gain
    save_file(tensors, path)
    return path


def small_weights(folder: Path, *, gain: float = 1.0) -> dict[str, Path]:
    """Weights for SMALL."""
    return {
        "vggish": vggish_file(folder / "vggish.pth"),
        "visual": timm_file(folder / "test_resnet.safetensors", gain=gain),
    }
