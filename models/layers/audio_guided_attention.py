"""Audio-guided visual attention, which weights the positions of a frame by the sound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avplatform.models.layers.precision import in_autocast


class AudioGuidedAttention(nn.Module):
    """Weight the positions of a visual map by the audio of the same segment.

    Source: AVE (ECCV 2018), section 4.1; PSP (CVPR 2021) uses the same block.

    Departs: the published code adds the audio vector per map position, not per hidden unit, so the
    attention has as many hidden units as the map has positions; we follow the code.

    Shape: audio [B, T, Da], visual [B, T, P, Dv] -> attended [B, T, Dv], weights [B, T, P]. A map
    with P = 1 is passed through.
    """

    def __init__(
        self,
        *,
        audio_dim: int,
        visual_dim: int,
        positions: int,
        width: int = 512,
        xavier: bool = True,
    ) -> None:
        super().__init__()
        self.positions = positions
        if positions == 1:
            return
        self.audio = nn.Linear(audio_dim, width)
        self.visual = nn.Linear(visual_dim, width)
        self.visual_scores = nn.Linear(width, positions, bias=False)
        self.audio_scores = nn.Linear(width, positions, bias=False)
        self.score = nn.Linear(positions, 1, bias=False)
        if xavier:
            for layer in self.children():
                nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended visual vectors and the weights."""
        if self.positions == 1:
            return visual.squeeze(2), visual.new_ones(visual.shape[:3])
        visual = in_autocast(visual)
        content = self.visual_scores(self.visual(visual).relu())  # (B, T, P, K) with K = P
        sound = self.audio_scores(self.audio(audio).relu())  # (B, T, P)
        scores = self.score(torch.tanh(content + sound.unsqueeze(-1))).squeeze(-1)  # (B, T, P)
        weights = scores.softmax(dim=-1)
        attended = torch.einsum("btp,btpd->btd", weights.to(visual.dtype), visual)
        return attended, weights
