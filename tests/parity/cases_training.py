"""Golden optimiser steps in float64, with the product's step, optimiser, clipping and losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avplatform.config.optim import OptimConfig
from avplatform.data.adapters.registry import make_task
from avplatform.models.official import key_map
from avplatform.tasks.avel import AVELConfig
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step
from tests.parity.cases_models import build, grad_norms, llp_forward, official_options
from tests.parity.golden_case import Case


def optim_config(case: Case) -> OptimConfig:
    recipe = case.json["recipe"]
    return OptimConfig(
        name=recipe["optimizer"].lower(),
        lr=recipe["lr"],
        betas=tuple(recipe["betas"]),
        eps=recipe["eps"],
        weight_decay=recipe["weight_decay"],
        clip_norm=recipe["grad_clip_l2"],
    )


def train(
    case: Case,
    name: str,
    task: Task,
    batch_of: Any,
    build: Any = build,
    options: Any = None,
    prepare: Any = None,
) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """Take the case's steps; return the model and what was recorded.

    `prepare(model, batch, step)` returns the batch of a step, as the training loop makes it.
    """
    model, config = build(case, name), optim_config(case)
    optimizer = build_optimizer(model, config)
    start = {k: v.detach().clone() for k, v in model.named_parameters()}
    batches = len(
        {key.split(".")[1] for key in case.json["inputs"] if key.startswith("input.step")}
    )
    aliases = case.json.get("aliases", {})
    order = [key for key in case.json["parameters"] if key not in aliases]
    recorded: dict[str, list[Tensor]] = {"loss_total": [], "grad_norm": []}
    first = None
    for step in range(case.json["steps"]):
        batch = batch_of(case, step % batches)
        if prepare is not None:
            with torch.no_grad():
                batch = prepare(model, batch, step)
        result = optimisation_step(
            model,
            task,
            batch,
            optimizer,
            lr=case.json["recipe"]["lr_per_step"][step],
            clip_norm=config.clip_norm,
        )
        recorded["loss_total"].append(result.total)
        recorded["grad_norm"].append(result.grad_norm)
        for term, value in result.losses.items():
            recorded.setdefault(term, []).append(value)
        if first is None:
            norms = grad_norms(case, name, model, order, options)
            clip = config.clip_norm
            factor = 1.0 if clip is None else min(1.0, clip / (float(result.grad_norm) + 1e-6))
            first = norms / factor  # stored norms are those before clipping
    keys = key_map(name, case.weights(), **(options or official_options(case)))
    now = dict(model.named_parameters())
    moved = [
        (now[keys[key]] - start[keys[key]]).norm()
        if key in keys
        else torch.zeros((), dtype=case.dtype)
        for key in order
    ]
    out = {k: torch.stack([v.detach() for v in values]) for k, values in recorded.items()}
    return model, {**out, "grad_norms_step0": first, "delta_norms": torch.stack(moved).detach()}


def llp_batch(case: Case, step: int) -> Batch:
    audio, visual, motion = (
        case.input(f"step{step}.{n}") for n in ("audio", "visual", "visual_st")
    )
    labels = {"weak": case.labels_above("target", step=step)}
    for ours, theirs in (("pseudo_audio", "temporal_pa"), ("pseudo_visual", "temporal_pv")):
        if case.has_input(f"step{step}.{theirs}"):
            labels[ours] = case.labels_above(theirs, step=step)
    rows = torch.arange(len(audio))
    return Batch(
        audio=audio,
        visual=visual,
        motion=motion,
        row=rows,
        clip_id=[str(i) for i in rows],
        labels=labels,
    )


def ave_batch(case: Case, step: int) -> Batch:
    audio, visual = case.input(f"step{step}.audio"), case.input(f"step{step}.visual")
    segment, video = case.segment_labels(f"step{step}", segments=audio.shape[1])
    rows = torch.arange(len(audio))
    labels = {"segment": segment, "video": video}
    return Batch(
        audio=audio,
        visual=visual,
        motion=None,
        row=rows,
        clip_id=[str(i) for i in rows],
        labels=labels,
    )


def train_llp(case: Case, name: str, task: Task) -> None:
    model, recorded = train(case, name, task, llp_batch)
    names = {
        "audio": "loss_audio",
        "visual": "loss_visual",
        "global": "loss_global",
        "segment_audio": "loss_seg_a",
        "segment_visual": "loss_seg_v",
    }
    produced = {names.get(k, k): v for k, v in recorded.items()}
    _, test = llp_forward(case, model, prefix="test.")
    case.compare({**produced, **{f"test_{k}": v for k, v in test.items()}})


def train_han(case: Case) -> None:
    config = AVVPConfig(
        supervision="weak",
        audio_smooth=case.config["a_smooth"],
        visual_smooth=case.config["v_smooth"],
    )
    train_llp(case, "han", make_task("avvp", config))


def train_valor(case: Case) -> None:
    train_llp(case, "valor", make_task("avvp", AVVPConfig(objective="valor")))


def train_ave(case: Case, name: str = "ave", supervision: str = "full") -> None:
    task = make_task("avel", AVELConfig(supervision=supervision, head_loss="soft_margin"))
    model, recorded = train(case, name, task, ave_batch)
    parse = model(case.input("test.audio"), case.input("test.visual")).parse
    test = {
        "test_prob": parse.segment.av.probability,
        "test_score": parse.segment.av.logit,
        "test_video_prob": parse.video.av.probability,
    }
    case.compare({**recorded, **test})


CASES = {
    "train_han": train_han,
    "train_valor": train_valor,
    "train_ave_full": train_ave,
    "train_ave_weak": lambda case: train_ave(case, supervision="weak"),
    "train_dmrn": lambda case: train_ave(case, name="dmrn"),
}
