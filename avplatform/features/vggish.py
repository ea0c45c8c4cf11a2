"""VGGish: the network, its published weights, and the PCA with 8-bit quantisation that may follow.

Source: Hershey et al., ICASSP 2017 (AudioSet's release). The weights are those of torchvggish, the
port to PyTorch that is commonly used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avplatform.models.checkpoint.file import read_checkpoint
from avplatform.models.errors import DataError

CONVOLUTIONS = (0, 3, 6, 8, 11, 13)  # their indices in `features`
POOLED_BEFORE = (3, 6, 11)  # convolutions that follow a pooling
MAP = 6 * 4  # positions in the map of a patch of 96 x 64 after the poolings
LOW, HIGH = -2.0, 2.0  # the range of the 8-bit quantisation


class VGGish(nn.Module):
    """The network from log-mel patches to vectors, which are taken after the last ReLU.

    Args:
        channels: the channels of the six convolutions.
        hidden: the width of the two hidden layers.
        width: the width of the result.

    Shape: [B, 96, 64] -> [B, width]; the published network has width 128.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 128, 256, 256, 512, 512),
        hidden: int = 4096,
        width: int = 128,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        below = 1
        for place, above in zip(CONVOLUTIONS, channels, strict=True):
            layers += [nn.MaxPool2d(2)] if place in POOLED_BEFORE else []
            layers += [nn.Conv2d(below, above, 3, padding=1), nn.ReLU()]
            below = above
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.embeddings = nn.Sequential(
            nn.Linear(MAP * below, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
            nn.ReLU(),
        )
        self.width = width

    def forward(self, patches: Tensor) -> Tensor:
        """Return the vectors of patches."""
        maps = self.features(patches[:, None])
        # Channels last, as the release flattens them.
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))


def read_vggish(file: Path) -> VGGish:
    """Build the network from a file of weights, with the widths in the file.

    Raises:
        DataError: these are not the weights of VGGish.
    """
    tensors = read_checkpoint(file).tensors
    try:
        channels = tuple(tensors[f"features.{place}.bias"].shape[0] for place in CONVOLUTIONS)
        hidden, width = (tensors[f"embeddings.{place}.bias"].shape[0] for place in (0, 4))
        network = VGGish(channels, hidden, width)
        own = {name: value for name, value in tensors.items() if not name.startswith("pproc.")}
        network.load_state_dict(own)
    except (KeyError, IndexError, RuntimeError) as error:
        text = str(error).splitlines()[0][:200]
        raise DataError(
            f"{file} does not hold VGGish's weights ({text}); give vggish-10086976.pth"
        ) from None
    return network


class Postprocessor:
    """PCA with whitening and 8-bit quantisation, which gives the features that AudioSet publishes.

    Departs: to quantise, AudioSet's release rounds down and the port to PyTorch rounds to the
    nearest; we follow the release.

    Raises:
        DataError: the file does not hold the PCA's parameters.
    """

    def __init__(self, file: Path) -> None:
        names = ("pca_eigen_vectors", "pca_means")
        if file.suffix == ".npz":
            try:
                with np.load(file, allow_pickle=False) as archive:
                    arrays = {name: torch.from_numpy(archive[name]) for name in names}
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise DataError(f"{file} does not hold the PCA of VGGish ({error})") from None
        else:
            tensors = read_checkpoint(file).tensors
            tensors = {name.removeprefix("pproc."): value for name, value in tensors.items()}
            if missing := [name for name in names if name not in tensors]:
                raise DataError(
                    f"{file} has no {missing[0]}; give vggish_pca_params-970ea276.pth or "
                    "vggish_pca_params.npz"
                )
            arrays = tensors
        self.vectors, self.means = arrays[names[0]].float(), arrays[names[1]].float().reshape(-1)
        if self.vectors.ndim != 2 or self.vectors.shape[1] != len(self.means):
            raise DataError(
                f"{file}: the PCA's vectors {tuple(self.vectors.shape)} do not fit "
                f"{len(self.means)} means"
            )

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the whole numbers from 0 to 255 as floats: [B, D] -> [B, D]."""
        means, vectors = (x.to(embeddings.device) for x in (self.means, self.vectors))
        projected = (embeddings.float() - means) @ vectors.T
        return ((projected.clamp(LOW, HIGH) - LOW) * (255.0 / (HIGH - LOW))).floor()
