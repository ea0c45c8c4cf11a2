"""CMBS's attention over the positions and channels of a visual map, guided by the audio."""

from __future__ import annotations

from torch import Tensor, nn

from avplatform.models.layers.precision import in_autocast


class SpatialChannelAttention(nn.Module):
    """Self attention over positions, then channel and spatial attention guided by the audio.

    Source: CMBS (CVPR 2022), section 3.2, in the form of its released code: the attentions are not
    scaled, and a tanh precedes the spatial softmax.

    Shape: audio [B, T, Da], visual [B, T, P, Dv] -> [B, T, Dv], and {"spatial_attention",
    "self_spatial_attention" [B, T, P], "channel_attention" [B, T, Dv]}.
    """

    def __init__(
        self, *, audio_dim: int, visual_dim: int, beta: float, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.beta = beta
        half, quarter = visual_dim // 2, visual_dim // 4
        self.query, self.key = nn.Linear(visual_dim, quarter), nn.Linear(visual_dim, quarter)
        self.value = nn.Linear(visual_dim, visual_dim)
        self.norm, self.dropout = nn.LayerNorm(visual_dim), nn.Dropout(dropout)
        self.self_mean = nn.Linear(visual_dim, half)
        self.self_position = nn.Linear(visual_dim, half)
        self.self_score = nn.Linear(half, 1)
        self.channel_audio = nn.Linear(audio_dim, visual_dim)
        self.channel_visual = nn.Linear(visual_dim, visual_dim)
        self.bottleneck = nn.Linear(visual_dim, half)
        self.channel_score = nn.Linear(half, visual_dim)
        self.spatial_visual = nn.Linear(visual_dim, half)
        self.spatial_audio = nn.Linear(audio_dim, half)
        self.spatial_score = nn.Linear(half, 1)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the attended vectors and the attention maps."""
        audio = audio.unsqueeze(2)  # (B, T, 1, Da)
        read = in_autocast(visual)
        # (B, T, P, P)
        weights = (self.query(read) @ self.key(read).transpose(-1, -2)).softmax(dim=-1)
        own = self.norm(visual + self.dropout(weights @ self.value(read)))  # (B, T, P, Dv)

        mean = self.self_mean(own.mean(dim=2, keepdim=True)).relu()
        own = in_autocast(own)
        # (B, T, P)
        self_weights = _over_positions(self.self_score, self.self_position(own).relu(), mean)
        self_attended = _weighted(self_weights, own)

        audio_channels = self.channel_audio(audio).relu().squeeze(2)
        joint = audio_channels * self.channel_visual(own).relu().mean(dim=2)  # (B, T, Dv)
        channel = self.channel_score(self.bottleneck(joint).relu()).sigmoid()
        visual = in_autocast(visual * (channel + 1).unsqueeze(2))

        spatial = _over_positions(
            self.spatial_score,
            self.spatial_visual(visual).relu(),
            self.spatial_audio(audio).relu(),
        )
        attended = _weighted(spatial, visual)
        attended = attended + self.beta * self_attended.sigmoid() * attended
        maps = {"spatial_attention": spatial, "self_spatial_attention": self_weights}
        return attended, {**maps, "channel_attention": channel}


def _over_positions(score: nn.Linear, x: Tensor, guide: Tensor) -> Tensor:
    """Return the softmax of tanh(score(x * guide)) over positions.

    The guide is the same for all positions, so it is multiplied into the one row of the score's
    weight instead of into the map.

    Shape: x [B, T, P, D], guide [B, T, 1, D] -> [B, T, P].
    """
    scores = (x @ (guide * score.weight).transpose(-1, -2)).squeeze(-1)
    return (scores + score.bias).tanh().softmax(dim=-1)


def _weighted(weights: Tensor, x: Tensor) -> Tensor:
    """Return the weighted sum over positions: [B, T, P], [B, T, P, D] -> [B, T, D]."""
    return (weights.unsqueeze(2) @ x).squeeze(2)
