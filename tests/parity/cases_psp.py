"""Golden cases of PSP."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from avplatform.data.adapters.ave.annotations import segment_labels
from avplatform.data.adapters.registry import make_task
from avplatform.data.reading.sampling import psp_batches
from avplatform.hub.convert import published_labels
from avplatform.models.official import read_official
from avplatform.tasks.avel import AVELConfig
from avplatform.tasks.avel.losses import StalePairTargets, pair_target
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from tests.parity.cases_models import Produced
from tests.parity.cases_training import ave_batch, train
from tests.parity.golden_case import Case, close


def build(case: Case, name: str, weak: bool = False) -> torch.nn.Module:
    return read_official(name, case.weights(), published_labels(name, weak=weak), weak=weak)


def forward(case: Case, model: torch.nn.Module, prefix: str = "") -> tuple[object, Produced]:
    output = model(case.input(f"{prefix}audio"), case.input(f"{prefix}visual"))
    parse, aux = output.parse, output.encoding.aux
    return output, {
        "spatial_attention": aux["spatial_attention"],
        "attended_visual": aux["attended_visual"],
        "lstm_audio": aux["lstm_audio"],
        "lstm_video": aux["lstm_visual"],
        "gamma_va": aux["gamma_va"],
        "gamma_av": aux["gamma_av"],
        "fa": aux["mapped_audio"],
        "fv": aux["mapped_visual"],
        "linear_v": aux["mapped_visual"],
        "fusion": output.encoding.fused,
        "v_psp": output.encoding.visual,
        "a_psp": output.encoding.audio,
        "logits": parse.segment.av.logit,
        "score": parse.segment.av.logit,
        "raw_score": parse.aux.get("raw_score"),
        "temporal_weight": parse.aux.get("temporal_weight"),
        "video_prob": parse.video.av.probability,
        "av_similarity": aux["similarity"],
    }


def task(case: Case, weak: bool) -> Task:
    if weak:
        return make_task(
            "avel", AVELConfig(supervision="weak", head_loss="bce", weak_target="prob")
        )
    return make_task(
        "avel", AVELConfig(head_loss="ce", pair_weight=case.config.get("lambda", 100.0))
    )


def psp(case: Case, model: torch.nn.Module | None = None, weak: bool = False) -> None:
    output, produced = forward(case, model or build(case, "psp", weak))
    segment, video = case.segment_labels(segments=case.json["inputs"]["input.audio"][1])
    none = torch.zeros(len(video), 1, 1)
    labels = {"segment": segment, "video": video}
    rows = torch.arange(len(video))
    batch = Batch(
        audio=none, visual=none, motion=None, row=rows, clip_id=[""] * len(rows), labels=labels
    )
    adapter = task(case, weak)
    terms = adapter.loss(output.parse, output.encoding, batch)
    total = sum(terms.values())
    extra = (
        {"loss": total}
        if weak
        else {"loss_cls": terms["segment"], "loss_avps": terms["pair"] / adapter.config.pair_weight}
    )
    case.compare({**produced, **extra, "loss_total": total})


def train_psp(case: Case, weak: bool = False) -> None:
    adapter = task(case, weak)
    options = {"weak": weak}
    model, recorded = train(
        case, "psp", adapter, ave_batch, build=lambda c, n: build(c, n, weak), options=options
    )
    _, test = forward(case, model, prefix="test.")
    if not weak:
        recorded["loss_cls"] = recorded["segment"]
        recorded["loss_avps"] = recorded["pair"] / adapter.config.pair_weight
    case.compare({**recorded, **{f"test_{k}": v for k, v in test.items()}})


def psp_soft_labels(case: Case) -> None:
    stale, produced = StalePairTargets(), {}
    for number, rows in enumerate(case.json["batches_class_onset_offset"], 1):
        segment = torch.from_numpy(segment_labels(*np.array(rows).T))
        produced[f"segment_label_batch{number}"] = segment
        produced[f"soft_clean_batch{number}"] = pair_target(segment)
        produced[f"soft_official_batch{number}"] = stale(segment)
    tolerance = case.json.get("tolerance", {"atol": 1e-7, "rtol": 1e-6})
    for name, expected in case.stored.items():
        close(f"{case.name}.{name}", produced[name], expected, tolerance)
    assert case.stored


def psp_batch_order(case: Case) -> None:
    data = case.json
    order, size, seed = (
        np.array(data["train_order"]),
        data["batch_size"],
        data["python_random_seed"],
    )
    for epoch, expected in enumerate(data.get("fully_epochs", []), 1):
        found = psp_batches(len(order), size, seed=seed, epoch=epoch, weak=False)
        assert [order[b].tolist() for b in found] == expected, (
            f"psp_batch_order: full epoch {epoch}"
        )
    for epoch, expected in enumerate(data.get("weakly_epochs", []), 1):
        found = psp_batches(len(order) + data["num_noisy"], size, seed=seed, epoch=epoch, weak=True)
        assert [b.tolist() for b in found] == expected, f"psp_batch_order: weak epoch {epoch}"
    assert data.get("fully_epochs") or data.get("weakly_epochs")


CASES = {
    "psp_soft_labels": psp_soft_labels,
    "psp_batch_order": psp_batch_order,
    "psp_full": psp,
    "psp_weak": partial(psp, weak=True),
    "train_psp_full": train_psp,
    "train_psp_weak": lambda case: train_psp(case, weak=True),
}
