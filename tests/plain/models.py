"""Plain eager models of video parsing (HAN, MM-Pyr, MMIL, LEAP).

They are the baselines of `python -m benchmarks training_step`.

They compute the functions of `models`, written the way one first writes them: a call of
`nn.MultiheadAttention` (or a linear layer per map) for every attention, 80 frames through the
visual map before they are averaged, one stream after the other, masks built in Python loops.
Modules have the names of ours, so that the same weights are loaded into both.
"""

from __future__ import annotations

import math

import torch
import torch.nn as nn
from torch import Tensor


class PlainStem(nn.Module):
    """Project 80 frames a clip, then average them to segments."""

    def __init__(self, audio: int, visual: int, motion: int, width: int) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(audio, width), nn.Linear(visual, width)
        self.motion, self.fusion = nn.Linear(motion, width), nn.Linear(2 * width, width)

    def forward(self, audio: Tensor, visual: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.visual(visual)  # (B, 80, D)
        segments = frames.view(frames.shape[0], audio.shape[1], -1, frames.shape[-1]).mean(dim=2)
        fused = self.fusion(torch.cat([segments, self.motion(motion)], dim=-1))
        return self.audio(audio), fused


class PlainFeedForward(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer, self.dropout = (
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.dropout(torch.relu(self.inner(x))))


class PlainHANLayer(nn.Module):
    """Self and cross attention of one stream, each a `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feedforward = PlainFeedForward(width, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout1, self.dropout2, self.dropout3 = (
            nn.Dropout(dropout),
            nn.Dropout(dropout),
            nn.Dropout(dropout),
        )

    def forward(self, stream: Tensor, other: Tensor) -> Tensor:
        cross = self.cross_attention(stream, other, other)[0]
        own = self.self_attention(stream, stream, stream)[0]
        x = self.norm1(stream + self.dropout1(cross) + self.dropout2(own))
        return self.norm2(x + self.dropout3(self.feedforward(x)))


class PlainHAN(nn.Module):
    """One layer; the streams are encoded one after the other."""

    def __init__(
        self, width: int = 512, heads: int = 1, hidden: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList([PlainHANLayer(width, heads, hidden, dropout)])

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers[0](audio, visual), self.layers[0](visual, audio)


class PlainMMIL(nn.Module):
    """Three linear maps, two softmaxes; returns video probabilities of audio, visual and both."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)
        self.segment_attention = nn.Linear(width, classes)
        self.modality_attention = nn.Linear(width, classes)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, ...]:
        x = torch.cat([audio.unsqueeze(2), visual.unsqueeze(2)], dim=2)
        probability = torch.sigmoid(self.classifier(x))  # (B, T, 2, C)
        over_time = torch.softmax(self.segment_attention(x), dim=1)
        over_modality = torch.softmax(self.modality_attention(x), dim=2)
        weighted = over_time * probability
        return (
            weighted[:, :, 0].sum(1),
            weighted[:, :, 1].sum(1),
            (over_modality * weighted).sum(2).sum(1),
        )


class PlainAttention(nn.Module):
    """Attention with four linear maps; returns the result, and the scores before the softmax."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        batch, _, width = query.shape

        def split(x: Tensor) -> Tensor:
            return x.view(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = split(self.query(query)), split(self.key(memory)), split(self.value(memory))
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(width // self.heads)
        if mask is not None:
            scores = scores.masked_fill(mask == 0, -1e9)
        found = torch.matmul(self.dropout(torch.softmax(scores, dim=-1)), v)
        return self.output(found.transpose(1, 2).contiguous().view(batch, -1, width)), scores


class PlainUnit(nn.Module):
    """Attention and feed-forward with residuals; the query is normalised."""

    def __init__(
        self, width: int = 512, heads: int = 8, hidden: int = 512, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.attention = PlainAttention(width, heads, 0.1)
        self.feedforward = PlainFeedForward(width, hidden, dropout)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the updated query, and the query between attention and feed-forward."""
        query = query + self.dropout1(self.attention(self.attention_norm(query), memory, mask)[0])
        return query + self.dropout2(self.feedforward(self.feedforward_norm(query))), query


class PlainTemporal(nn.Module):
    """Dilated convolution, ReLU, pointwise convolution."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 1)
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + x).permute(0, 2, 1)


class PlainLevel(nn.Module):
    """Four attention units a level, called one by one."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.visual_self, self.audio_self, self.cross = (
            PlainUnit(width),
            PlainUnit(width),
            PlainUnit(width),
        )
        self.visual_gates = nn.ModuleList(
            [nn.Linear(2 * width, width), nn.Linear(2 * width, width)]
        )
        self.audio_gates = nn.ModuleList([nn.Linear(2 * width, width), nn.Linear(2 * width, width)])
        self.visual_temporal, self.audio_temporal = (
            PlainTemporal(width, reach),
            PlainTemporal(width, reach),
        )

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        segments = audio.shape[1]
        mask = torch.zeros(segments, segments)
        for row in range(segments):
            for column in range(max(0, row - self.reach), min(segments, row + self.reach + 1)):
                mask[row, column] = 1
        own_v, own_a = (
            self.visual_self(visual, visual, mask)[0],
            self.audio_self(audio, audio, mask)[0],
        )
        cross_v, cross_a = self.cross(visual, audio, mask)[0], self.cross(audio, visual, mask)[0]
        out = []
        for own, cross, gates in (
            (own_a, cross_a, self.audio_gates),
            (own_v, cross_v, self.visual_gates),
        ):
            first = torch.sigmoid(gates[0](torch.cat([own, cross], dim=-1)))
            second = torch.sigmoid(gates[1](torch.cat([own, cross], dim=-1)))
            out.append(first * own + second * cross)
        return self.audio_temporal(out[0]), self.visual_temporal(out[1])


class PlainMMPyr(nn.Module):
    """Four levels and the fusion over them."""

    def __init__(self, width: int = 512, levels: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList([PlainLevel(width, 2**i) for i in range(levels)])
        self.audio_fusion, self.visual_fusion = PlainUnit(width), PlainUnit(width)
        self.audio_select, self.visual_select = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        outputs: list[list[Tensor]] = [[], []]
        for level in self.levels:
            audio, visual = level(audio, visual)
            outputs[0].append(audio)
            outputs[1].append(visual)
        streams = []
        for found, unit, select in (
            (outputs[0], self.audio_fusion, self.audio_select),
            (outputs[1], self.visual_fusion, self.visual_select),
        ):
            stacked = torch.stack(found, dim=2)  # (B, T, L, D)
            z = unit(stacked.flatten(0, 1), stacked.flatten(0, 1))[0]
            streams.append((torch.sigmoid(select(z)) * z).sum(1).view(audio.shape))
        return streams[0], streams[1]


class PlainLEAP(nn.Module):
    """Labels projected for every clip; a second attention pass in every block scores segments."""

    def __init__(self, width: int, label_dim: int, blocks: int = 2) -> None:
        super().__init__()
        self.labels = nn.Linear(label_dim, width)
        self.audio_blocks = nn.ModuleList([PlainUnit(width) for _ in range(blocks)])
        self.visual_blocks = nn.ModuleList([PlainUnit(width) for _ in range(blocks)])
        self.audio_video, self.visual_video = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, audio: Tensor, visual: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return segment logits [B, T, C] and video logits [B, C] of audio and of visual."""
        out = []
        for memory, blocks, classify in (
            (audio, self.audio_blocks, self.audio_video),
            (visual, self.visual_blocks, self.visual_video),
        ):
            state = self.labels(labels.unsqueeze(0).repeat(memory.shape[0], 1, 1))  # (B, C, D)
            for block in blocks:
                state, attended = block(state, memory)
                scores = block.attention(attended, memory)[1].mean(dim=1)  # (B, C, T)
            out += [scores.transpose(1, 2), classify(state).squeeze(-1)]
        return tuple(out)
