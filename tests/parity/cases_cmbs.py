"""Golden cases of CMBS."""

from __future__ import annotations

from functools import partial

import torch

from avplatform.data.adapters.registry import make_task
from avplatform.hub.convert import published_labels
from avplatform.models.official import read_official
from avplatform.tasks.avel import AVELConfig
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from tests.parity.cases_models import Produced
from tests.parity.cases_training import ave_batch, train
from tests.parity.golden_case import Case


def build(case: Case, name: str, weak: bool = False) -> torch.nn.Module:
    return read_official(name, case.weights(), published_labels(name, weak=weak), weak=weak)


def forward(
    case: Case, model: torch.nn.Module, prefix: str = "", weak: bool = False
) -> tuple[object, Produced]:
    output = model(case.input(f"{prefix}audio"), case.input(f"{prefix}visual"))
    parse, aux = output.parse, output.encoding.aux

    def time_first(x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(-1) if x.ndim == 2 else x
        return x.transpose(0, 1)

    produced = {
        name: aux[name] for name in ("attended_visual", "channel_attention", "spatial_attention")
    }
    produced["self_spatial_attention"] = aux["self_spatial_attention"]
    sequence = {
        "video_kv": aux["visual_kv"],
        "audio_kv": aux["audio_kv"],
        "audio_query": aux["audio_query_before"],
        "video_query": aux["visual_query_before"],
        "audio_gate": aux["audio_gate"],
        "video_gate": aux["visual_gate"],
        "video_cas": parse.aux["visual_class"],
        "audio_cas": parse.aux["audio_class"],
        "av_inter": output.encoding.visual,
        "va_inter": output.encoding.audio,
        "is_event": parse.relevance.values,
        "av_gate": aux["av_gate"],
    }
    produced.update({name: time_first(value) for name, value in sequence.items()})
    if weak:
        produced["av_gate"] = aux["av_gate"]
        produced["cas_score_raw"] = parse.aux["segment_scores"]
        produced["raw_logits"] = parse.aux["raw_logits"]
        produced["event_scores"] = parse.video.av.probability
    else:
        produced["rnn_audio"], produced["rnn_visual"] = aux["lstm_audio"], aux["lstm_visual"]
        produced["event_logits_before_gamma"] = parse.aux["event_before_scores"]
        produced["event_scores"] = parse.video.av.logit
        produced["av_score"] = parse.aux["class_scores"]
    return output, produced


NAMES = {
    "relevance": "loss_is_event",
    "gate": "loss_gate",
    "event": "loss_event",
    "class_scores": "loss_cas",
}


def task(weak: bool) -> Task:
    options = {"supervision": "weak", "head_loss": "soft_margin"} if weak else {}
    return make_task("avel", AVELConfig(gate_loss="official", weak_relevance="official", **options))


def cmbs(case: Case, model: torch.nn.Module | None = None, weak: bool = False) -> None:
    output, produced = forward(case, model or build(case, "cmbs", weak), weak=weak)
    segment, video = case.segment_labels(segments=case.json["inputs"]["input.audio"][1])
    none, rows = torch.zeros(len(video), 1, 1), torch.arange(len(video))
    labels = {"segment": segment, "video": video}
    batch = Batch(
        audio=none, visual=none, motion=None, row=rows, clip_id=[""] * len(rows), labels=labels
    )
    terms = task(weak).loss(output.parse, output.encoding, batch)
    total = sum(terms.values())
    losses = {"loss": total} if weak else {NAMES[name]: value for name, value in terms.items()}
    case.compare({**produced, **losses, "loss_total": total})


def train_cmbs(case: Case, weak: bool = False) -> None:
    options = {"weak": weak}
    model, recorded = train(
        case, "cmbs", task(weak), ave_batch, build=lambda c, n: build(c, n, weak), options=options
    )
    _, test = forward(case, model, prefix="test.", weak=weak)
    produced = {NAMES.get(name, name): value for name, value in recorded.items()}
    case.compare({**produced, **{f"test_{k}": v for k, v in test.items()}})


CASES = {
    "cmbs_full": cmbs,
    "cmbs_weak": partial(cmbs, weak=True),
    "train_cmbs_full": train_cmbs,
    "train_cmbs_weak": lambda case: train_cmbs(case, weak=True),
}
