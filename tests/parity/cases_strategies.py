"""Golden cases of MA, JoMoLD and CVCMS: what they train, and on which labels."""

from __future__ import annotations

import re
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from avplatform.config.optim import ScheduleConfig
from avplatform.data.adapters.registry import make_task
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.contrast import (
    cross_video_contrast,
    cross_video_logits,
    jomold_contrast,
    ma_contrast,
    shared_classes,
)
from avplatform.tasks.avvp.denoise import (
    drop_counts,
    dropped_labels,
    label_losses,
    ratio_strength,
)
from avplatform.tasks.avvp.mixing import mixed
from avplatform.tasks.avvp.targets import smooth
from avplatform.tasks.batch import Batch, Moment, Processes
from avplatform.tasks.contracts import Task
from avplatform.tasks.losses import segment_similarity
from avplatform.training.optim import learning_rate
from tests.parity.cases_models import Produced, build, llp_forward
from tests.parity.cases_training import llp_batch, train
from tests.parity.golden_case import Case

LETTERS = "av"


def jomold_denoise(case: Case) -> None:
    config = case.config
    smoothing = config["a_smooth"], config["v_smooth"]
    produced = {}
    for name in config["scenarios"]:
        probabilities, ratios = (
            torch.stack([case.stored[f"{name}_given_{what}"] for what in pair])
            for pair in (("a_prob", "v_prob"), ("ratio_a", "ratio_v"))
        )
        target = case.stored[f"{name}_target"]
        labels = target.bool().expand(2, -1, -1)
        counts, _ = drop_counts(ratios, labels)
        losses = label_losses(probabilities, (smooth(1.0, smoothing[0]), smooth(1.0, smoothing[1])))
        dropped = dropped_labels(losses, labels, counts)
        for letter, gone, s in zip(LETTERS, dropped, smoothing, strict=True):
            produced[f"{name}_removed_{letter}"] = gone
            produced[f"{name}_denoised_{letter}"] = smooth(target, s) * ~gone
    given = tuple(key for key in case.stored if "_given_" in key or key.endswith("_target"))
    case.compare(produced, given=given)


def jomold_schedule(case: Case) -> None:
    config = case.config
    batches, epochs = config["batches_per_epoch"], config["epochs"]

    def factors(official: str) -> list[list[list[float]]]:
        return [
            [
                [
                    ratio_strength(
                        Moment(epoch, batch, batches),
                        warm_up="off" if length is None else official,
                        epochs=length or 1.0,
                    )
                    for batch in range(batches)
                ]
                for epoch in range(1, epochs + 1)
            ]
            for length in config["warm_up_epochs"]
        ]

    schedule = ScheduleConfig(
        name="epoch_decay", factor=config["lr_gamma"], every=config["lr_step_size"]
    )
    rates = [
        learning_rate(schedule, base_lr=config["lr"], epoch=e, epochs=config["lr_epochs"])
        for e in range(1, config["lr_epochs"] + 1)
    ]
    case.compare(
        {
            "factor": factors("official"),
            "intended": factors("linear"),
            "lr_per_epoch": rates,
        }
    )


def ma_han(case: Case, model: torch.nn.Module | None = None) -> None:
    output, produced = llp_forward(case, model or build(case, "ma"))
    encoding, config = output.encoding, case.config
    visual, temperature = encoding.aux["stem_visual"], config["temperature"]
    how = dict(temperature=temperature, smoothing=config["smoothing"])
    case.compare(
        {
            **produced,
            "contrast_logits": segment_similarity(encoding.audio, visual) / temperature,
            "loss_contrast": ma_contrast(encoding.audio, visual, **how),
        }
    )


def contrast_alone(case: Case, contrast: Any, visual_name: str) -> None:
    """The term alone, with gradients, for one clip, and with a zero vector."""
    config = case.config
    audio = case.input("enc_a").requires_grad_()
    visual = (0.7 * case.input("enc_a") + case.input(visual_name)).detach().requires_grad_()
    how = dict(temperature=config["temperature"], smoothing=config["smoothing"])
    loss = contrast(audio, visual, **how)
    loss.backward()
    empty = visual.detach().clone()
    empty[2, 4] = 0
    case.compare(
        {
            "contrast_logits": segment_similarity(audio, visual) / config["temperature"],
            "loss": loss,
            "grad_enc_a": audio.grad[..., ::16],
            f"grad_{visual_name}": visual.grad[..., ::16],
            "loss_one_clip": contrast(audio[:1], visual[:1], **how),
            "loss_zero_segment": contrast(audio, empty, **how),
        }
    )


def refined_batch(case: Case, step: int, epoch: int | None = None) -> Batch:
    """A batch whose clips carry refined labels, as MA's file gives them."""
    batch = llp_batch(case, step)
    weak = batch.labels["weak"]
    drops = {
        name: weak * case.labels_above(f"drop_{name[0]}", step=step) for name in ("audio", "visual")
    }
    exception = case.json["labels"].get("drop_exception", "")
    if found := re.match(r"in step(\d+) clip (\d+) all classes are dropped", exception):
        for drop in drops.values():
            if step == int(found[1]):
                drop[int(found[2])] = weak[int(found[2])]
    batch.labels |= {f"keep_{name}": 1 - drop for name, drop in drops.items()}
    return batch


def train_case(
    case: Case,
    name: str,
    task: Task,
    batch_of: Any,
    extra: Produced | None = None,
    prepare: Any = None,
    given: tuple[str, ...] = (),
) -> None:
    """Take the steps; the stored terms are without their weights."""
    model, recorded = train(case, name, task, batch_of, prepare=prepare)
    config = task.config
    weights = {
        "audio": config.audio_weight,
        "visual": config.visual_weight,
        "global": config.global_weight,
        "contrast": config.contrast_weight,
    }
    stored = {
        name: weight for name, weight in weights.items() if f"loss_{name}" not in (extra or {})
    }
    terms = {f"loss_{name}": recorded[name] / weight for name, weight in stored.items()}
    _, test = llp_forward(case, model, prefix="test.")
    tested = {f"test_{k}": v for k, v in test.items()}
    found = {name: torch.cat(values) for name, values in (extra or {}).items()}
    case.compare({**recorded, **terms, **tested, **found}, given=given)


def train_ma(case: Case) -> None:
    config = case.config
    task_config = AVVPConfig(
        supervision="weak",
        audio_smooth=config["a_smooth"],
        visual_smooth=config["v_smooth"],
        contrast="ma",
        contrast_temperature=config["temperature"],
        global_target="official",
    )
    train_case(case, "ma", make_task("avvp", task_config), refined_batch)


def jomold_han(case: Case, model: torch.nn.Module | None = None) -> None:
    model, produced, config = model or build(case, "jomold"), {}, case.config
    how = dict(temperature=config["temperature"], smoothing=config["smoothing"])
    for prefix, context in (("cross", nullcontext()), ("self", model.encoder.self_only())):
        with context:
            output, found = llp_forward(case, model)
        audio, visual = output.encoding.audio, output.encoding.visual
        found["contrast_logits"] = segment_similarity(audio, visual) / config["temperature"]
        found["loss_contrast"] = jomold_contrast(audio, visual, **how)
        produced |= {f"{prefix}_{key}": value for key, value in found.items()}
    case.compare(produced)


def jomold_config(case: Case, **more: Any) -> AVVPConfig:
    config = case.config
    return AVVPConfig(
        supervision="weak",
        audio_smooth=config["a_smooth"],
        visual_smooth=config["v_smooth"],
        contrast="jomold",
        contrast_temperature=config["temperature"],
        **{f"{name}_weight": weight for name, weight in config.get("weights", {}).items()},
        **more,
    )


def train_jomold_estimator(case: Case) -> None:
    train_case(case, "jomold-estimator", make_task("avvp", jomold_config(case)), llp_batch)


def train_jomold(case: Case) -> None:
    removed: Produced = {"removed_a": [], "removed_v": []}
    with TemporaryDirectory() as folder:
        ratios = {k: case.stored[f"given_ratio_{k[0]}"].numpy() for k in ("audio", "visual")}
        np.savez(f"{folder}/ratios.npz", **ratios)
        options = dict(
            denoise="self",
            noise_ratios=f"{folder}/ratios.npz",
            denoise_warm_up_epochs=case.config["warm_up_epoch"],
        )
        task = make_task("avvp", jomold_config(case, **options))

        def prepare(model: torch.nn.Module, batch: Batch, step: int) -> Batch:
            batch.moment = Moment(step + 1, 0, 1)
            ready = task.prepare(model, batch, Processes())
            for name in ("audio", "visual"):
                keep = ready.labels.get(f"keep_{name}", torch.ones_like(batch.labels["weak"]))
                removed[f"removed_{name[0]}"].append(1 - keep)
            return ready

        given = ("given_ratio_a", "given_ratio_v")
        train_case(case, "jomold", task, llp_batch, removed, prepare, given)


def cvcms_net(case: Case, model: torch.nn.Module | None = None) -> None:
    model = model or build(case, "cvcms")
    streams = [case.input(name) for name in ("audio", "visual", "visual_st")]
    output, produced = llp_forward(case, model)
    decoder, encoding = model.decoder, output.encoding
    clips, segments = encoding.audio.shape[:2]
    tokens = decoder.tokens(encoding)
    for where, values in (("in", tokens), ("out", decoder.layer(tokens))):
        found = values.unflatten(0, (2, clips, segments))[:, 1, 3]
        produced |= {f"class_{where}_a": found[0], f"class_{where}_v": found[1]}
    heard, seen = (case.labels_above(f"target_{letter}") for letter in LETTERS)
    seen[2] = 0
    batch = Batch(
        *streams,
        row=torch.arange(clips),
        clip_id=[str(i) for i in range(clips)],
        labels={
            "weak": torch.maximum(heard, seen),
            "keep_audio": heard,
            "keep_visual": seen,
        },
    )
    pairs = mixed(batch, (torch.arange(clips) + 1) % clips)
    doubled = model(pairs.audio, pairs.visual, pairs.motion)
    labels = pairs.labels["keep_audio"], pairs.labels["keep_visual"]
    logits = cross_video_logits(
        doubled.encoding, doubled.parse, *labels, temperature=case.config["temperature"]
    )
    order = torch.arange(2 * clips).unflatten(0, (clips, 2)).T.flatten()  # clips, then mixed pairs
    video = doubled.parse.video
    produced |= {
        "enc_a": encoding.audio[..., ::16],
        "enc_v": encoding.visual[..., ::16],
        "mixed_global_prob": video.av.probability[order],
        "mixed_a_prob": video.audio.probability[order],
        "mixed_v_prob": video.visual.probability[order],
        "mixed_target_a": labels[0][order],
        "mixed_target_v": labels[1][order],
        "mixed_contrast_logits": logits[order][:, order],
        "loss_contrast": cross_video_contrast(logits, *labels),
    }
    case.compare(produced)


def cvcms_contrast_loss(case: Case) -> None:
    heard, seen = case.stored["target_a"], case.stored["target_v"]
    logits = case.input("logits").requires_grad_()
    loss = cross_video_contrast(logits, heard, seen)
    loss.backward()
    matches = shared_classes(heard, seen).to(logits.dtype)
    case.compare(
        {
            "pair_target": matches / (matches.sum(dim=1, keepdim=True) + 1e-10),
            "loss": loss,
            "grad_logits": logits.grad,
            "loss_smoothed_labels": cross_video_contrast(logits, heard, smooth(seen, 0.9)),
        },
        given=("target_a", "target_v"),
    )


def train_cvcms(case: Case) -> None:
    config = case.config
    task_config = AVVPConfig(
        supervision="weak",
        audio_smooth=config["before_audio_smoothing"],
        visual_smooth=config["before_vis_smoothing"],
        smooth_epochs=config["init_epoch"],
        smooth_dropped=True,
        global_target="union",
        contrast="cross_video",
        contrast_weight=config["w_contrast"],
        contrast_after=config["init_epoch"],
    )
    task, contrasts = make_task("avvp", task_config), []

    def prepare(model: torch.nn.Module, batch: Batch, step: int) -> Batch:
        batch.moment = Moment(step + 1, 0, 1)
        pairs = mixed(batch, (torch.arange(len(batch)) + 1) % len(batch))
        # The term is stored for every step; in the first ones it saw smoothed labels.
        output = model(pairs.audio, pairs.visual, pairs.motion)
        heard, seen = (
            pairs.labels["weak"] * pairs.labels[f"keep_{name}"] for name in ("audio", "visual")
        )
        early = step < config["init_epoch"]
        matched = smooth(seen, config["before_vis_smoothing"]) if early else seen
        logits = cross_video_logits(output.encoding, output.parse, heard, seen)
        contrasts.append(cross_video_contrast(logits, heard, matched).reshape(1))
        return batch if early else pairs

    train_case(case, "cvcms", task, refined_batch, {"loss_contrast": contrasts}, prepare)


CASES = {
    "cvcms_net": cvcms_net,
    "cvcms_contrast_loss": cvcms_contrast_loss,
    "train_cvcms": train_cvcms,
    "jomold_han": jomold_han,
    "train_jomold_estimator": train_jomold_estimator,
    "train_jomold": train_jomold,
    "ma_han": ma_han,
    "ma_contrast_loss": lambda case: contrast_alone(case, ma_contrast, "stem_v"),
    "train_ma": train_ma,
    "jomold_contrast_loss": lambda case: contrast_alone(case, jomold_contrast, "enc_v"),
    "jomold_denoise": jomold_denoise,
    "jomold_schedule": jomold_schedule,
}
