"""What `python -m benchmarks training_step` times: our models next to their plain counterparts.

Both have the same weights and inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.data.adapters.registry import make_task
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS
from tests.plain.maps import PlainAVE, PlainCMBS, PlainPSP
from tests.plain.models import PlainHAN, PlainLEAP, PlainMMIL, PlainMMPyr, PlainStem

LLP = FeatureSpec(audio_dim=128, visual_dim=2048, motion_dim=512)
AVE_MAPS = FeatureSpec(audio_dim=128, visual_dim=512, map_size=(7, 7))
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One model: its parts, the batch, and the goals.

    Goals are how many times as fast as the plain model a step must be, and is meant to become, in
    single precision and in bfloat16.
    """

    encoder: str
    decoder: str
    batch: int
    supervision: str
    fp32: tuple[float, float]
    bf16: tuple[float, float]
    double: bool = False  # the baseline computes in float64, as published
    rounds: int = 1  # times the usual number of rounds


ROWS = {
    "han": Row("han", "mmil", 16, "weak", (1.8, 2.2), (3.0, 4.5), rounds=3),
    "mmpyr": Row("mmpyr", "mmil", 16, "weak", (1.15, 1.5), (1.9, 3.0)),
    "leap": Row("mmpyr", "leap", 32, "pseudo", (1.15, 1.4), (2.0, 2.8)),
    "ave": Row("ave", "dch", 64, "full", (1.0, 1.3), (2.0, 3.0)),
    "psp": Row("psp", "dch", 128, "full", (1.0, 1.3), (2.0, 3.0)),
    "cmbs": Row("cmbs", "dch", 32, "full", (2.6, 3.2), (4.8, 6.5), double=True),
}


def pair(row: Row) -> tuple[Task, AVModel, nn.Module, Batch, Tensor | None]:
    """Return the task, our model, the plain one, a batch, and label embeddings (LEAP).

    Both models have the same weights.
    """
    torch.manual_seed(0)
    task, model, labels = our_model(row)
    batch, plain = make_batch(row, task), plain_model(row)
    with torch.no_grad():
        for parameter in (
            model.parameters()
        ):  # several maps start as copies, which would hide an exchange of two of them
            parameter.add_(0.02 * torch.randn_like(parameter))
    shared = {k: v for k, v in model.state_dict().items() if k != "label_embeddings"}
    (plain if isinstance(plain, PlainLLP) else plain.model).load_state_dict(
        shared
    )  # strictly: the same parameters
    return task, model, plain, batch, labels


class PlainLLP(nn.Module):
    """A plain stem, encoder and decoder of video parsing."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.stem, self.encoder, self.decoder = PlainStem(128, 2048, 512, 512), encoder, decoder

    def forward(self, batch: Batch, labels: Tensor | None) -> tuple[Tensor, ...]:
        audio, visual = self.encoder(*self.stem(batch.audio, batch.visual, batch.motion))
        return (
            *(
                self.decoder(audio, visual)
                if labels is None
                else self.decoder(audio, visual, labels)
            ),
            audio,
            visual,
        )


class PlainMaps(nn.Module):
    """A plain model of event localization, called like the others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, labels: Tensor | None) -> tuple[Tensor, ...]:
        return self.model(batch.audio, batch.visual.flatten(2, 3))


def our_model(row: Row) -> tuple[Task, AVModel, Tensor | None]:
    """Return the task and our model with its default options for that task."""
    name = "avvp" if row.supervision in ("weak", "pseudo") else "avel"
    options = {"avss": "official"} if row.decoder == "leap" else {}
    task = make_task(name, TASKS[name].Config(supervision=row.supervision, **options))
    classes, texts = task.model_classes(row.decoder, row.encoder)
    labels = torch.randn(len(classes), 300) if row.decoder == "leap" else None
    config = AVModelConfig(
        task=task.name,
        classes=classes,
        label_texts=texts if row.decoder == "leap" else [],
        label_dim=300,
        features=LLP if task.name == "avvp" else AVE_MAPS,
        encoder=ENCODERS[row.encoder].Config(**task.encoder_options(row.encoder)),
        decoder=DECODERS[row.decoder].Config(**task.decoder_options(row.encoder, row.decoder)),
    )
    return task, AVModel(config, label_embeddings=labels), labels


def plain_model(row: Row) -> nn.Module:
    """Return the plain model of a row."""
    if row.decoder == "dch":
        return PlainMaps({"ave": PlainAVE, "psp": PlainPSP, "cmbs": PlainCMBS}[row.encoder]())
    encoder = PlainHAN() if row.encoder == "han" else PlainMMPyr()
    return PlainLLP(encoder, PlainMMIL(512, 25) if row.decoder == "mmil" else PlainLEAP(512, 300))


def make_batch(row: Row, task: Task) -> Batch:
    """Return random features (80 frames a clip, or maps) and labels."""
    b, on = row.batch, lambda *shape: (torch.rand(*shape) < 0.1).float()
    if task.name == "avvp":
        visual, motion = torch.randn(b, 80, 2048), torch.randn(b, 10, 512)
        audio_events, visual_events = on(b, 10, 25), on(b, 10, 25)
        weak = torch.maximum(audio_events, visual_events).amax(dim=1)
        labels = {"weak": weak, "pseudo_audio": audio_events, "pseudo_visual": visual_events}
    else:
        visual, motion = torch.randn(b, 10, 7, 7, 512).relu(), None
        video = torch.randint(0, 28, (b,))
        labels = {
            "segment": torch.where(torch.rand(b, 10) < 0.8, video[:, None], 28),
            "video": video,
        }
    rows = torch.arange(b)
    return Batch(
        audio=torch.randn(b, 10, 128),
        visual=visual,
        motion=motion,
        row=rows,
        clip_id=[""] * b,
        labels=labels,
    )


def largest_difference(
    row: Row, task: Task, model: AVModel, plain: nn.Module, batch: Batch, labels: Tensor | None
) -> float:
    """Compare outputs and losses of both in evaluation mode; return the largest difference."""
    model.eval(), plain.eval()
    with torch.no_grad():
        parse, encoding = model(batch.audio, batch.visual, batch.motion)
        theirs = plain(batch, labels)
        ours = comparable(row, parse, encoding)
        total = sum(task.loss(parse, encoding, batch).values())
        plain_total = plain_loss(row, theirs, batch)
    pairs = [*zip(ours, theirs, strict=True), (total, plain_total)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def comparable(row: Row, parse: Any, encoding: Any) -> list[Tensor]:
    """Return of our output what the plain model returns, in its order."""
    if row.decoder == "mmil":
        out = [getattr(parse.video, s).probability for s in ("audio", "visual", "av")]
    elif row.decoder == "leap":
        out = [
            getattr(level, s).values
            for s in ("audio", "visual")
            for level in (parse.segment, parse.video)
        ]
    elif row.encoder == "cmbs":
        return [
            parse.video.av.values,
            parse.relevance.values,
            parse.aux["gate"],
            parse.aux["class_scores"],
        ]
    else:
        return [
            parse.segment.av.values,
            *([encoding.aux["similarity"]] if row.encoder == "psp" else []),
        ]
    return [*out, encoding.audio, encoding.visual]


def plain_loss(row: Row, out: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """Return the loss of a row, written plainly."""
    if row.decoder == "mmil":
        weak = batch.labels["weak"]
        targets = (weak, 0.9 * weak + 0.05, weak)
        return sum(
            F.binary_cross_entropy(p.clamp(1e-7, 1 - 1e-7), t)
            for p, t in zip(out[:3], targets, strict=True)
        )
    if row.decoder == "leap":
        return plain_leap_loss(out, batch)
    segment = batch.labels["segment"]
    if row.encoder == "cmbs":
        event, relevance, gate, scores = out
        on = (segment != 28).to(relevance.dtype)
        label = torch.where(segment == 28, 0, segment).max(dim=1)[0]
        loss = F.binary_cross_entropy_with_logits(
            relevance, on
        ) + F.binary_cross_entropy_with_logits(gate, on)
        return loss + F.cross_entropy(event, label) + F.cross_entropy(scores, label)
    loss = F.cross_entropy(out[0].reshape(-1, 29), segment.reshape(-1))
    if row.encoder == "psp":
        chosen = (segment == segment.min(dim=1, keepdim=True)[0]).float()
        shares = torch.relu(out[1])
        shares = shares / (shares.sum(dim=1, keepdim=True) + 1e-8)
        loss = loss + 100 * F.mse_loss(shares, chosen / chosen.sum(dim=1, keepdim=True))
    return loss


def plain_leap_loss(out: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """L_basic and the released similarity loss."""
    a_seg, a_vid, v_seg, v_vid, audio, visual = out
    pa, pv, weak = (batch.labels[k] for k in ("pseudo_audio", "pseudo_visual", "weak"))
    hard = ((torch.sigmoid(a_vid) >= 0.5) | (torch.sigmoid(v_vid) >= 0.5)).float()
    loss = F.binary_cross_entropy(hard.clamp(1e-7, 1 - 1e-7), weak)
    for logits, target in (
        (a_seg, pa),
        (v_seg, pv),
        (a_vid, pa.max(dim=1)[0]),
        (v_vid, pv.max(dim=1)[0]),
    ):
        loss = loss + F.binary_cross_entropy(torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7), target)
    similarity = torch.relu(
        torch.bmm(F.normalize(audio, dim=-1), F.normalize(visual, dim=-1).permute(0, 2, 1))
    )
    shared = torch.bmm(pa, pv.permute(0, 2, 1))
    largest = torch.maximum(pa.sum(-1).max(-1)[0], pv.sum(-1).max(-1)[0]).clamp(min=1e-8)
    ratio = shared / largest[:, None, None]
    return loss + F.mse_loss(similarity, ratio / (1 + ratio) + 0.01)
