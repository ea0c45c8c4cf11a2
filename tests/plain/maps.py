"""Plain eager models of event localization (AVE, PSP, CMBS with their heads).

They are the baselines of `python -m benchmarks training_step`.

They compute the functions of `models` on [B, T, 7, 7, 512] maps, written the way one first writes
them; modules have the names of ours, so that the same weights are loaded into both. Each returns
the logits that its loss and the check read.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from tests.plain.models import PlainFeedForward


def lstm(width: int, hidden: int) -> nn.LSTM:
    return nn.LSTM(width, hidden, batch_first=True, bidirectional=True)


class PlainGuided(nn.Module):
    """Audio-guided attention, on the segments of all clips as one batch."""

    def __init__(
        self, audio: int, visual: int = 512, positions: int = 49, width: int = 512
    ) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(audio, width), nn.Linear(visual, width)
        self.visual_scores = nn.Linear(width, positions, bias=False)
        self.audio_scores = nn.Linear(width, positions, bias=False)
        self.score = nn.Linear(positions, 1, bias=False)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        batch, segments = audio.shape[:2]
        a = audio.reshape(batch * segments, -1)
        v = visual.reshape(batch * segments, -1, visual.shape[-1])
        content = self.visual_scores(torch.relu(self.visual(v)))  # (BT, P, P)
        sound = self.audio_scores(torch.relu(self.audio(a))).unsqueeze(2)
        weights = torch.softmax(
            self.score(torch.tanh(content + sound)).squeeze(2), dim=-1
        ).unsqueeze(1)
        return torch.bmm(weights, v).view(batch, segments, -1)


class PlainAVE(nn.Module):
    """AVE's att model; returns segment logits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.attention = PlainGuided(128)
        self.encoder.audio_lstm, self.encoder.visual_lstm = lstm(128, 128), lstm(512, 128)
        self.decoder.hidden, self.decoder.classifier = nn.Linear(512, 64), nn.Linear(64, 29)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, ...]:
        attended = self.encoder.attention(audio, visual)
        a, v = self.encoder.audio_lstm(audio)[0], self.encoder.visual_lstm(attended)[0]
        x = torch.relu(torch.cat([a, v], dim=-1))
        return (self.decoder.classifier(torch.relu(self.decoder.hidden(x))),)


class PlainPropagation(nn.Module):
    """PSP's propagation, fully supervised form."""

    def __init__(self, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        for name in (
            "visual_value",
            "visual_query",
            "audio_key",
            "audio_value",
            "visual_fusion",
            "audio_fusion",
        ):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-6), nn.Dropout(dropout)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        v_value, v_query = (
            self.dropout(torch.relu(m(visual))) for m in (self.visual_value, self.visual_query)
        )
        a_value, a_key = (
            self.dropout(torch.relu(m(audio))) for m in (self.audio_value, self.audio_key)
        )
        beta = torch.relu(torch.bmm(v_query, a_key.permute(0, 2, 1)) / 16)
        gammas = []
        for b in (beta, beta.permute(0, 2, 1)):
            gamma = b / (b.sum(dim=2, keepdim=True) + 1e-8)
            gamma = torch.where(gamma > 0.099, gamma, torch.zeros_like(gamma))
            gammas.append(gamma / (gamma.sum(dim=2, keepdim=True) + 1e-8))
        v = self.dropout(torch.relu(self.visual_fusion(visual + torch.bmm(gammas[0], a_value))))
        a = self.dropout(torch.relu(self.audio_fusion(audio + torch.bmm(gammas[1], v_value))))
        return self.norm(a), self.norm(v)


class PlainPSP(nn.Module):
    """PSP, fully supervised; returns segment logits and the similarity of the streams."""

    def __init__(self) -> None:
        super().__init__()
        e = self.encoder = nn.Module()
        e.audio_map = nn.Sequential(
            nn.Linear(128, 256, bias=False), nn.Linear(256, 128, bias=False)
        )
        e.visual_map = nn.Sequential(
            nn.Linear(512, 256, bias=False), nn.Linear(256, 128, bias=False)
        )
        e.attention, e.propagation = PlainGuided(128), PlainPropagation()
        e.audio_lstm, e.visual_lstm = lstm(128, 128), lstm(128, 128)
        self.decoder = nn.Module()
        self.decoder.hidden, self.decoder.classifier = (
            nn.Linear(256, 64, bias=False),
            nn.Linear(64, 29, bias=False),
        )

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, ...]:
        e = self.encoder
        audio = e.audio_map(audio)
        attended = e.visual_map(e.attention(audio, visual))
        a, v = e.propagation(e.audio_lstm(audio)[0], e.visual_lstm(attended)[0])
        similarity = (F.normalize(v, dim=-1) * F.normalize(a, dim=-1)).sum(dim=-1)
        logits = self.decoder.classifier(torch.relu(self.decoder.hidden((v + a) / 2)))
        return logits, similarity


class PlainSpatialChannel(nn.Module):
    """CMBS's attention over positions and channels."""

    def __init__(self, audio: int = 128, visual: int = 512, beta: float = 0.4) -> None:
        super().__init__()
        self.beta, half = beta, visual // 2
        sizes = {
            "query": (visual, visual // 4), "key": (visual, visual // 4), "value": (visual, visual),
            "self_mean": (visual, half), "self_position": (visual, half), "self_score": (half, 1),
            "channel_audio": (audio, visual), "channel_visual": (visual, visual),
            "bottleneck": (visual, half), "channel_score": (half, visual),
            "spatial_visual": (visual, half), "spatial_audio": (audio, half),
            "spatial_score": (half, 1),
        }  # fmt: skip
        for name, (read, write) in sizes.items():
            setattr(self, name, nn.Linear(read, write))
        self.norm, self.dropout = nn.LayerNorm(visual), nn.Dropout(0.2)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        batch, segments = audio.shape[:2]
        a = audio.reshape(batch * segments, 1, -1)
        v = visual.reshape(batch * segments, -1, visual.shape[-1])
        weights = torch.softmax(torch.bmm(self.query(v), self.key(v).permute(0, 2, 1)), dim=-1)
        own = self.norm(v + self.dropout(torch.bmm(weights, self.value(v))))
        mean = torch.relu(self.self_mean(own.mean(dim=1, keepdim=True)))
        score = torch.softmax(
            torch.tanh(self.self_score(torch.relu(self.self_position(own)) * mean)), dim=1
        )
        self_attended = torch.bmm(score.permute(0, 2, 1), own).squeeze(1)
        joint = (torch.relu(self.channel_audio(a)) * torch.relu(self.channel_visual(own))).mean(
            dim=1
        )
        channel = torch.sigmoid(self.channel_score(torch.relu(self.bottleneck(joint)))).unsqueeze(1)
        v = v * (channel + 1)
        matched = torch.relu(self.spatial_visual(v)) * torch.relu(self.spatial_audio(a))
        spatial = torch.softmax(torch.tanh(self.spatial_score(matched)), dim=1)
        attended = torch.bmm(spatial.permute(0, 2, 1), v).squeeze(1)
        attended = attended + self.beta * torch.sigmoid(self_attended) * attended
        return attended.view(batch, segments, -1)


class PlainTransformer(nn.Module):
    """Post-norm transformer layer on `nn.MultiheadAttention`."""

    def __init__(self, hidden: int, width: int = 256, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feedforward = PlainFeedForward(width, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout1(self.attention(x, memory, memory)[0]))
        return self.norm2(x + self.dropout2(self.feedforward(x)))


class PlainStream(nn.Module):
    """A stream's encoder (two layers) or decoder (one layer that reads both streams)."""

    def __init__(self, read: int, *, decoder: bool) -> None:
        super().__init__()
        self.affine = nn.Linear(read, 256)
        if decoder:
            self.layer = PlainTransformer(1024)
        else:
            self.layers = nn.ModuleList([PlainTransformer(1024), PlainTransformer(1024)])

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = self.affine(x)
        if memory is not None:
            return self.layer(x, torch.cat([memory, x], dim=1))
        for layer in self.layers:
            x = layer(x, x)
        return x


class PlainInteraction(nn.Module):
    """The product of both streams reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(256, 4, 0.2, batch_first=True)
        self.norm, self.dropout = nn.LayerNorm(256), nn.Dropout(0.1)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        both = torch.cat([other, own], dim=1)
        return self.norm(own * other + self.dropout(self.attention(own * other, both, both)[0]))


class PlainCMBS(nn.Module):
    """CMBS, fully supervised; returns event, relevance, gate and class scores."""

    def __init__(self) -> None:
        super().__init__()
        e = self.encoder = nn.Module()
        e.map, e.map_dropout, e.attention = (
            nn.Linear(512, 512),
            nn.Dropout(0.2),
            PlainSpatialChannel(),
        )
        e.audio_lstm, e.visual_lstm = lstm(128, 128), lstm(512, 256)
        e.audio_encoder, e.visual_encoder = (
            PlainStream(256, decoder=False),
            PlainStream(512, decoder=False),
        )
        e.audio_decoder, e.visual_decoder = (
            PlainStream(256, decoder=True),
            PlainStream(512, decoder=True),
        )
        e.audio_gate, e.visual_gate = nn.Linear(256, 1), nn.Linear(256, 1)
        e.visual_interaction, e.audio_interaction = PlainInteraction(), PlainInteraction()
        self.decoder = nn.Module()
        h = self.decoder.head = nn.Module()
        h.audio_class, h.visual_class = nn.Linear(256, 28), nn.Linear(256, 28)
        h.relevance, h.event = nn.Linear(256, 1), nn.Linear(256, 28)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, ...]:
        e, h = self.encoder, self.decoder.head
        visual = e.map_dropout(torch.relu(e.map(visual)))
        visual = e.attention(audio, visual)
        audio, visual = e.audio_lstm(audio)[0], e.visual_lstm(visual)[0]
        v_kv, a_kv = e.visual_encoder(visual), e.audio_encoder(audio)
        a, v = e.audio_decoder(audio, v_kv), e.visual_decoder(visual, a_kv)
        g_a, g_v = torch.sigmoid(e.audio_gate(a_kv)), torch.sigmoid(e.visual_gate(v_kv))
        v, a = v + 0.1 * g_a * v, a + 0.1 * g_v * a
        v_out = e.visual_interaction(v, a)
        a_out = e.audio_interaction(a, v_out)
        fused = (v_out + a_out) / 2
        scores = [
            m(x).topk(4, dim=1)[0].mean(dim=1) for m, x in ((h.visual_class, v), (h.audio_class, a))
        ]
        scores = (scores[0] + scores[1]) / 2
        event = h.event(fused.max(dim=1)[0]) + 0.3 * scores
        return event, h.relevance(fused).squeeze(-1), (g_a * g_v).squeeze(-1), scores
