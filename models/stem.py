"""Stems, which turn the features of a dataset into the input that an encoder wants."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from avplatform.models.layers.audio_guided_attention import AudioGuidedAttention

MAP_WIDTH = 512  # vectors are projected to this width where an encoder wants maps


class VectorStem(nn.Module):
    """Project audio and visual features to the model width.

    Source: HAN (ECCV 2020), section 4: affine maps fc_a, fc_v, fc_st and fc_fusion, without
    activation; CMPAE (CVPR 2023), released code, for an ELU after each of them.

    The k frames of a segment are averaged before the affine map, which gives the same result for
    1/k of the work (k is 8 in LLP); `pool_first=False` averages afterwards, as the published code
    does, which rounds differently. With an activation, frames are always averaged after it. Visual
    maps are averaged over their positions, or weighted by AVE's audio-guided attention
    (`map_reduction="attention"`). Without motion features there are no layers for motion and
    fusion.

    Shape: audio [B, T, Da], visual [B, T*k, Dv] or [B, T, H, W, Dv], motion [B, T, Dm] -> two
    tensors [B, T, D].
    """

    def __init__(
        self,
        *,
        features: FeatureSpec,
        width: int,
        pool_first: bool = True,
        map_reduction: Literal["mean", "attention"] = "mean",
        activation: Literal["none", "elu"] = "none",
    ) -> None:
        super().__init__()
        self.features, self.pool_first = features, pool_first and activation == "none"
        self.activation = nn.ELU() if activation == "elu" else nn.Identity()
        if features.map_size is not None and map_reduction == "attention":
            self.map_attention = AudioGuidedAttention(
                audio_dim=features.audio_dim,
                visual_dim=features.visual_dim,
                positions=features.positions,
            )
        self.audio = nn.Linear(features.audio_dim, width)
        self.visual = nn.Linear(features.visual_dim, width)
        if features.motion_dim is not None:
            self.motion = nn.Linear(features.motion_dim, width)
            self.fusion = nn.Linear(2 * width, width)

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the projected streams; see the class docstring for shapes."""
        check_features(self.features, audio, visual, motion)
        if hasattr(self, "map_attention"):
            visual = self.map_attention(audio, rearrange(visual, "b t h w d -> b t (h w) d"))[0]
        elif self.features.map_size is not None:
            visual = reduce(visual, "b t h w d -> b t d", "mean")
        segments = audio.shape[1]
        if self.pool_first:
            x = self.visual(pool_frames(visual, segments))
        else:
            x = average_pool(self.activation(self.visual(visual)), segments)
        if motion is not None and self.features.motion_dim is not None:
            x = torch.cat([x, self.activation(self.motion(motion))], dim=-1)  # (B, T, 2D)
            x = self.activation(self.fusion(x))
        return self.activation(self.audio(audio)), x


class FeatureStem(nn.Module):
    """Pass on the features as they are, as vectors of one width; it has no parameters.

    The frames of a segment, and the positions of a map, are averaged; motion features stand behind
    the visual ones. "shared" takes both streams as vectors of one space, such as ImageBind's.
    "apart" makes one space of two, such as those of CLAP and CLIP: a vector has the audio
    coordinates first and then the visual ones, and each stream has zeros where the other one
    stands. "auto" is shared where both streams have the same width.

    Shape: audio [B, T, Da], visual [B, T*k, Dv] or [B, T, H, W, Dv], motion [B, T, Dm] -> two
    tensors [B, T, D], where D is Da (shared), or Da + Dv and Dm if there is one (apart).

    Raises:
        UsageError: the streams share no space, because their widths differ.
    """

    def __init__(
        self, *, features: FeatureSpec, space: Literal["auto", "shared", "apart"] = "auto"
    ) -> None:
        super().__init__()
        self.features = features
        audio, visual = features.audio_dim, features.visual_dim + (features.motion_dim or 0)
        if space == "shared" and audio != visual:
            raise UsageError(
                f"encoder_config.space is 'shared', but the audio vectors have {audio} numbers and "
                f"the visual ones {visual}; use auto or apart"
            )
        self.apart = space == "apart" or audio != visual
        self.width = audio + visual if self.apart else audio

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both streams; see the class docstring for shapes."""
        check_features(self.features, audio, visual, motion)
        if self.features.map_size is not None:
            visual = reduce(visual, "b t h w d -> b t d", "mean")
        visual = pool_frames(visual, audio.shape[1])
        if self.features.motion_dim is not None and motion is not None:
            visual = torch.cat([visual, motion], dim=-1)
        if not self.apart:
            return audio, visual
        heard, seen = audio.shape[-1], visual.shape[-1]
        return F.pad(audio, (0, seen)), F.pad(visual, (heard, 0))


class MapStem(nn.Module):
    """Pass on the raw audio, and the visual map as a list of positions.

    A dataset of vectors becomes a map of one position: its frames are averaged to segments, and
    the concatenated visual and motion vectors are projected to `MAP_WIDTH`.

    Shape: audio [B, T, Da], visual [B, T, H, W, Dv] or [B, T*k, Dv], motion [B, T, Dm] -> audio
    [B, T, Da], visual [B, T, P, Dv'], where Dv' is Dv for maps and `MAP_WIDTH` for vectors.
    """

    def __init__(self, *, features: FeatureSpec) -> None:
        super().__init__()
        self.features = features
        self.visual_dim = features.visual_dim
        if features.map_size is None:
            self.visual_dim = MAP_WIDTH
            self.visual = nn.Linear(features.visual_dim + (features.motion_dim or 0), MAP_WIDTH)

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both streams; see the class docstring for shapes."""
        check_features(self.features, audio, visual, motion)
        if self.features.map_size is not None:
            return audio, rearrange(visual, "b t h w d -> b t (h w) d")
        x = pool_frames(visual, audio.shape[1])
        if self.features.motion_dim is not None and motion is not None:
            x = torch.cat([x, motion], dim=-1)
        return audio, self.visual(x).unsqueeze(2)


def pool_frames(visual: Tensor, segments: int) -> Tensor:
    """Average k consecutive frame vectors to one segment vector.

    Shape: [B, T*k, D] -> [B, T, D].
    """
    if visual.shape[1] == segments:
        return visual
    return reduce(visual, "b (t k) d -> b t d", "mean", t=segments)


def pool_clap(tokens: Tensor, segments: int = 10) -> Tensor:
    """Average CLAP's 64 tokens per clip (2 bands of 32 steps) to segments.

    Source: VALOR (NeurIPS 2023), released code: VALOR++ stretches both bands to 1,024 steps by
    bicubic interpolation, averages the bands, and averages the steps to segments.

    Departs: the released code pools after its affine map. The pooling is linear with weights that
    add up to 1, so both orders give the same result, and a store can hold the pooled vectors.

    Shape: [B, 64, D] -> [B, segments, D].

    Raises:
        DataError: the number of tokens is not 64.
    """
    if tokens.ndim != 3 or tokens.shape[1] != 64:
        raise DataError(
            f"the CLAP features have shape {list(tokens.shape)}; a clip has 64 tokens: [B, 64, D]"
        )
    bands = rearrange(tokens, "b (band t) d -> b d band t", band=2)
    stretched = F.interpolate(bands, size=(2, 1024), mode="bicubic").mean(dim=2)  # (B, D, 1024)
    return F.adaptive_avg_pool1d(stretched, segments).transpose(1, 2)


def average_pool(frames: Tensor, segments: int) -> Tensor:
    """Average k consecutive frame vectors by torch's pooling kernel, as the published models do.

    Shape: [B, T*k, D] -> [B, T, D].
    """
    kernel = frames.shape[1] // segments
    pooled = F.avg_pool2d(frames.transpose(1, 2).unsqueeze(-1), (kernel, 1))  # (B, D, T, 1)
    return pooled.squeeze(-1).transpose(1, 2)


def check_features(
    features: FeatureSpec, audio: Tensor, visual: Tensor, motion: Tensor | None
) -> None:
    """Check the shapes of features against the spec that the model was built for.

    Raises:
        DataError: a shape is wrong; names the stream, its shape and the expected one.
    """
    if audio.ndim != 3 or audio.shape[-1] != features.audio_dim:
        raise DataError(
            f"audio has shape {list(audio.shape)}; the model reads [B, T, {features.audio_dim}]"
        )
    batch, segments = audio.shape[:2]
    if features.map_size is not None:
        expected = [batch, segments, *features.map_size, features.visual_dim]
        if list(visual.shape) != expected:
            raise DataError(
                f"visual has shape {list(visual.shape)}; with this audio the model reads {expected}"
            )
    elif (
        visual.ndim != 3
        or visual.shape[0] != batch
        or visual.shape[-1] != features.visual_dim
        or visual.shape[1] == 0
        or visual.shape[1] % segments
    ):
        raise DataError(
            f"visual has shape {list(visual.shape)}; with {segments} audio segments "
            f"the model reads [{batch}, {segments} or a multiple, {features.visual_dim}]"
        )
    if features.motion_dim is not None:
        expected = [batch, segments, features.motion_dim]
        if motion is None:
            raise DataError(f"motion features are missing; the model reads {expected}")
        if list(motion.shape) != expected:
            raise DataError(
                f"motion has shape {list(motion.shape)}; with this audio the model reads {expected}"
            )
