"""Golden cases of OV-AVEL's two baselines: decisions, temporal layers, training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.contracts import Encoding, Parse
from avplatform.models.decoders.cosine import CosineConfig, CosineDecoder
from avplatform.models.encoders.identity import Identity, IdentityConfig
from avplatform.models.official import Labels, read_official
from avplatform.tasks.agreement import agreement
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.tasks.ovavel import OVAVEL, OVAVELConfig
from tests.parity.cases_training import train
from tests.parity.golden_case import Case, close

RELEASED: dict[str, Any] = {"equal_scores": "first"}
"""Where all scores of a segment are equal, the authors' code decides for the first class."""


def told(config: dict[str, Any]) -> dict[str, Any]:
    """What shapes cannot tell, from a configuration of the authors' code."""
    return {
        "heads": config["head_num"],
        "adjacency": config["use_adj_in_attn"],
        "window": config["win_size"] if config["use_mask_in_attn"] else None,
        "power_norm": bool(config["norm_flag"]),
    }


def names(count: int) -> list[str]:
    return [*(f"event {number}" for number in range(count - 1)), "background"]


def build(weights: dict[str, Tensor], texts: Tensor, **options: Any) -> nn.Module:
    labels = Labels(task="ovavel", classes=names(len(texts)), label_texts=names(len(texts)))
    return read_official("ovavel", weights, labels, label_embeddings=texts, **options)


def task_of(texts: Tensor) -> Task:
    return OVAVEL(OVAVELConfig(**RELEASED), classes=names(len(texts)))


def batch_of(audio: Tensor, visual: Tensor, segment: Tensor) -> Batch:
    rows = torch.arange(len(audio))
    return Batch(
        audio=audio,
        visual=visual,
        motion=None,
        row=rows,
        clip_id=[str(row) for row in rows.tolist()],
        labels={"segment": segment, "video": segment.amin(dim=1)},
    )


def planted(case: Case, prefix: str, label: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Features with a share of the texts of their labels, in ImageBind's norms."""
    x = (case.input(f"{prefix}{name}") + 0.25 * texts[label] for name in ("audio", "visual"))
    audio, visual = (F.normalize(stream, dim=-1) for stream in x)
    return 20 * audio, visual


def ovavel_temporal(case: Case, model: nn.Module | None = None) -> None:
    texts, label = case.input("text"), torch.tensor(case.json["label"])
    model = model or build(case.weights(), texts, **told(case.config))
    audio, visual = planted(case, "", label, texts)
    parse, encoding = model(audio, visual)
    terms = task_of(texts).loss(parse, encoding, batch_of(audio, visual, label))
    case.compare(
        {
            "audio": encoding.audio,
            "visual": encoding.visual,
            "audio_text": parse.segment.audio.values,
            "visual_text": parse.segment.visual.values,
            "loss": terms["segment"][None],
            "audio_attention": encoding.aux["audio_attention"],
            "visual_attention": encoding.aux["visual_attention"],
        }
    )


def ovavel_temporal_options(case: Case) -> None:
    produced = {}
    for option, changes in case.json["options"].items():
        config = {**case.config, **changes}
        shapes = case.json["parameters_linear" if option == "linear" else "parameters"]
        own = {
            name: shape
            for name, shape in shapes.items()
            if option == "linear" or layer_of(name) < config["sa_layer_num"]
        }
        weights = Case(case.name, case.folder)
        weights.json["parameters"] = own
        width = case.json["inputs"]["input.audio"][-1]
        options = {} if option == "linear" else told(config)
        encoder = build(weights.weights(), torch.ones(2, width), **options).encoder
        encoder.config = dataclasses.replace(encoder.config, input_scale=None)
        found = encoder(case.input("audio"), case.input("visual"))
        produced |= {f"{option}.audio": found.audio, f"{option}.visual": found.visual}
    case.compare(produced)


def layer_of(name: str) -> int:
    return int(name.split("_blocks.")[1].split(".")[0])


def ovavel_decision(case: Case) -> None:
    texts, background = case.input("text"), case.json["background"]
    streams = {}
    for name in ("audio", "visual"):
        rule = case.json["derived"]
        at = torch.tensor(rule[f"{name}_class"])
        gain = torch.tensor(rule[f"{name}_gain"], dtype=torch.float64)
        added = gain[..., None] * texts.double()[at.clamp(min=0)] * (at >= 0)[..., None]
        streams[name] = (case.input(name).double() + added).float()
        if f"zero_{name}" in rule:
            streams[name][torch.tensor(rule[f"zero_{name}"]).bool()] = 0
    width = texts.shape[1]
    encoder = Identity(config=IdentityConfig(), audio_dim=width, visual_dim=width)
    decoder = CosineDecoder(config=CosineConfig(rectify="product"), width=width)
    encoding: Encoding = encoder(**streams)
    parse = decoder(encoding, texts)
    audio, visual = parse.segment.audio.values, parse.segment.visual.values
    truth = case.json["truth"]
    happens = torch.tensor(truth["event"]).bool()
    segment = torch.where(happens, torch.tensor(truth["category"])[:, None], background)
    task = task_of(texts)
    produced = {
        "audio_text": audio,
        "visual_text": visual,
        "product_scores": parse.segment.av.values,
        "product_segment": task.decide(parse)["segment"],
        "loss": task.loss(parse, encoding, batch_of(**streams, segment=segment))["segment"][None],
    }
    for name, options in DECISIONS.items():
        task = OVAVEL(OVAVELConfig(**RELEASED, **options), classes=names(len(texts)))
        asked = task.model_classes("cosine", "identity")[0]
        found = decoder(encoding, texts[: len(asked)])
        check_figures(case, name, task, found, segment)
        if name != "product":
            streams = found.segment.audio.values, found.segment.visual.values
            rule = agreement(*streams, background, clip_class="first", **RELEASED)
            given = torch.where(rule.agree, rule.first[:, None], background)
            assert torch.equal(task.decide(found)["segment"], given)
            produced |= {f"{name}.agree": rule.agree, f"{name}.clip_class": rule.first}
    case.compare(produced)


DECISIONS = {
    "agreement": {"decision": "agreement", "clip_class": "first", "label_set": "events"},
    "agreement_other": {"decision": "agreement", "clip_class": "first", "other_hole": True},
    "product": {},
}


def check_figures(case: Case, name: str, task: OVAVEL, parse: Parse, segment: Tensor) -> None:
    """The figures per clip, of the task's own decisions and metrics."""
    category = torch.tensor(case.json["truth"]["category"])
    batch = batch_of(segment[..., None].float(), segment[..., None].float(), segment)
    batch.labels["category"] = category
    metrics = task.metrics()
    metrics.update(task.decide(parse), batch)
    expected = case.json["figures"][name]["per_clip_mean"]
    found = metrics.compute()
    for theirs, ours in {
        "accuracy": "accuracy",
        "segment_f1": "segment_F",
        "event_f1": "event_F",
    }.items():
        close(
            f"{case.name}.{name}.{ours}",
            found[ours],
            expected[theirs],
            case.json["figures_tolerance"],
        )


def training_batch(case: Case, texts: Tensor) -> Callable[[Case, int], Batch]:
    def of(case: Case, step: int) -> Batch:
        rows = case.json["labels"]["class_onset_offset"][f"step{step}"]
        length = case.json["inputs"][f"input.step{step}.audio"][1]
        segment = torch.full((len(rows), length), len(texts) - 1)
        for clip, (label, onset, offset) in enumerate(rows):
            segment[clip, onset:offset] = label
        return batch_of(*planted(case, f"step{step}.", segment, texts), segment)

    return of


def ovavel_train(case: Case) -> None:
    every, options = case.input("text"), told(case.config)
    texts = every[: case.json["inputs"]["input.step0.class"][1] + 1]
    model, recorded = train(
        case,
        "ovavel",
        task_of(texts),
        training_batch(case, texts),
        build=lambda case, name: build(case.weights(), texts, **options),
        options=options,
    )
    label = torch.tensor(case.json["labels"]["test_labels"])
    parse = model(*planted(case, "test.", label, every), label_embeddings=every).parse
    case.compare(
        {
            **recorded,
            "loss": recorded["loss_total"],
            "test_segment": task_of(every).decide(parse)["segment"],
            "test_audio_text": parse.segment.audio.values,
            "test_visual_text": parse.segment.visual.values,
        }
    )


CASES = {
    "ovavel_decision": ovavel_decision,
    "ovavel_temporal": ovavel_temporal,
    "ovavel_temporal_options": ovavel_temporal_options,
    "ovavel_train": ovavel_train,
}
