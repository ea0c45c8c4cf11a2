"""PSP, positive sample propagation: similar segments of both streams exchange their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import check_choices, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication
from avplatform.models.layers.audio_guided_attention import AudioGuidedAttention

THRESHOLDS = {"full": 0.099, "weak": 0.095}


@dataclass(kw_only=True)
class PSPConfig:
    """Options of the PSP encoder; the defaults are the published fully supervised model."""

    variant: Literal["full", "weak"] = "full"
    """the published fully or weakly supervised model: they propagate differently"""
    threshold: float | None = None
    """similarities up to this value are pruned; none: 0.099 (full) or 0.095 (weak), as published"""
    attention_width: int = 512
    """hidden width of the audio-guided attention"""
    lstm_width: int = 128
    """width of each LSTM direction; the streams come out twice as wide"""
    dropout: float = 0.1
    """dropout after each rectified map of the propagation"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "attention_width", "lstm_width")
        in_range(self, "dropout", 0, 0.999)
        if self.threshold is not None:
            in_range(self, "threshold", 0, 1)


def _recipe(milestones: tuple[int, ...]) -> dict[str, Any]:
    return {
        "schedule": {"name": "milestones", "factor": 0.8, "milestones": milestones},
        "epochs": 300,
        "batch_size": 128,
        "seed": 123,
    }


class PSP(Encoder):
    """Audio-guided attention, one LSTM per stream, and propagation along pruned similarities.

    Source: PSP (CVPR 2021), sections 3.1 to 3.3.

    Departs: only the fully supervised code renormalises similarities after pruning; the weakly
    supervised code has no input maps and no fusion maps. Each variant follows its code.

    Shape: audio [B, T, Da], visual [B, T, P, Dv] -> audio, visual and fused [B, T, 2 * lstm_width];
    aux: gamma_va and gamma_av [B, T, T], similarity [B, T].
    """

    name = "psp"
    Config = PSPConfig
    wants = "maps"
    about = (
        "The encoder PSP lets segments exchange what they share with similar segments of the "
        "other stream"
    )
    paper = Publication(
        paper="PSP",
        venue="CVPR 2021",
        authors="Zhou et al.",
        citation="""@inproceedings{zhou2021psp,
  title = {Positive Sample Propagation along the Audio-Visual Event Line},
  author = {Zhou, Jinxing and Zheng, Liang and Zhong, Yiran and Hao, Shijie and Wang, Meng},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2021}
}""",
    )
    recipes = {"psp": _recipe((60, 120)), "psp-weak": _recipe((80, 160))}
    settings = {"full": {"variant": "full"}, "weak": {"variant": "weak"}}
    pooling = "mean"

    @classmethod
    def gives(cls, config: PSPConfig) -> Gives:
        """Return a fused stream, and the similarity of the two streams."""
        return frozenset({"fused", "similarity"})

    @classmethod
    def own_head(cls, config: PSPConfig) -> str | None:
        """Return PSP's head on the fused stream, weighted over time when weakly supervised."""
        return "psp"

    def __init__(
        self, *, config: PSPConfig, audio_dim: int, visual_dim: int, positions: int
    ) -> None:
        super().__init__()
        width = config.lstm_width
        self.config, self.width = config, 2 * width
        given = config.threshold
        self.threshold = THRESHOLDS[config.variant] if given is None else given
        read_dim = width if config.variant == "full" else audio_dim
        if config.variant == "full":
            self.audio_map = _two_maps(audio_dim, 2 * width, width)
            self.visual_map: nn.Module = _two_maps(visual_dim, 2 * width, width)
        else:
            self.visual_map = nn.Linear(visual_dim, width)
        self.attention = AudioGuidedAttention(
            audio_dim=read_dim,
            visual_dim=visual_dim,
            positions=positions,
            width=config.attention_width,
        )
        self.audio_lstm = nn.LSTM(read_dim, width, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.propagation = Propagation(
            self.width, renormalise=config.variant == "full", dropout=config.dropout
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams."""
        if self.config.variant == "full":
            audio = self.audio_map(audio)
        attended, weights = self.attention(audio, visual)
        read = self.visual_map(attended)
        a, v = self.audio_lstm(audio)[0], self.visual_lstm(read)[0]  # (B, T, D)
        aux = {"spatial_attention": weights, "attended_visual": attended}
        aux |= {"lstm_audio": a, "lstm_visual": v}
        aux |= {"mapped_audio": audio, "mapped_visual": read}
        a, v, gammas = self.propagation(a, v, self.threshold)
        similarity = (F.normalize(v, dim=-1) * F.normalize(a, dim=-1)).sum(dim=-1)
        return Encoding(
            audio=a, visual=v, fused=(v + a) / 2, aux={**aux, **gammas, "similarity": similarity}
        )


class Propagation(nn.Module):
    """Add to each segment the features of those segments of the other stream that are similar.

    Source: PSP (CVPR 2021), Eqs. 2 to 5.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D], and {"gamma_va", "gamma_av"}
    [B, T, T].
    """

    def __init__(self, width: int, *, renormalise: bool, dropout: float) -> None:
        super().__init__()
        self.renormalise = renormalise
        names = ["visual_value", "visual_query", "audio_key", "audio_value"]
        for name in names + (["visual_fusion", "audio_fusion"] if renormalise else []):
            layer = nn.Linear(width, width, bias=False)
            nn.init.xavier_uniform_(layer.weight)
            setattr(self, name, layer)
        self.norm = nn.LayerNorm(width, eps=1e-6)  # one norm for both streams
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, audio: Tensor, visual: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return both streams and the propagation weights."""
        query, key = self._map(self.visual_query, visual), self._map(self.audio_key, audio)
        # (B, T, T), rows visual
        similarity = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).relu()
        gamma_va = self._prune(similarity, threshold)
        gamma_av = self._prune(similarity.transpose(-1, -2), threshold)
        new_visual = visual + gamma_va @ self._map(self.audio_value, audio)
        new_audio = audio + gamma_av @ self._map(self.visual_value, visual)
        if self.renormalise:
            new_visual = self._map(self.visual_fusion, new_visual)
            new_audio = self._map(self.audio_fusion, new_audio)
        gammas = {"gamma_va": gamma_va, "gamma_av": gamma_av}
        return self.norm(new_audio), self.norm(new_visual), gammas

    def _map(self, layer: Any, x: Tensor) -> Tensor:
        return self.dropout(layer(x).relu())

    def _prune(self, similarity: Tensor, threshold: float) -> Tensor:
        shares = _share(similarity)
        kept = shares * (shares > threshold)
        return _share(kept) if self.renormalise else kept


def _share(matrix: Tensor) -> Tensor:
    """Divide each row by its sum."""
    return matrix / (matrix.sum(dim=-1, keepdim=True) + 1e-8)


def _two_maps(first: int, inner: int, last: int) -> nn.Sequential:
    """Return two linear maps without bias and without activation between them, as published."""
    maps = nn.Sequential(nn.Linear(first, inner, bias=False), nn.Linear(inner, last, bias=False))
    for layer in maps:
        nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
    return maps
