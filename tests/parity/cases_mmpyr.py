"""Golden cases of MM-Pyr and of LEAP on MM-Pyr."""

from __future__ import annotations

import torch

from avplatform.data.adapters.registry import make_task
from avplatform.hub.convert import published_labels
from avplatform.models.contracts import Output
from avplatform.models.encoders.mmpyr import window
from avplatform.models.official import read_official
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from tests.parity.cases_models import Produced, grad_norms, llp_forward, same_model
from tests.parity.cases_training import llp_batch, train
from tests.parity.golden_case import Case


def build(case: Case, name: str) -> torch.nn.Module:
    """The model; LEAP's own label embeddings are the first clip's.

    Each clip's embeddings are given to the forward pass.
    """
    heads = case.config.get("heads", case.config.get("mmp_heads"))
    labels = {}
    if name == "leap":
        values = case.input("label")
        labels["label_embeddings"] = values if values.ndim == 2 else values[0]
    return read_official(name, case.weights(), published_labels(name), heads=heads, **labels)


def mmpyr_mmil(case: Case, model: torch.nn.Module | None = None) -> None:
    model = model or build(case, "mmpyr")
    output, produced = llp_forward(case, model)
    levels = output.encoding.aux
    audio, visual = model.stem(*(case.input(n) for n in ("audio", "visual", "visual_st")))
    first_audio, first_visual = model.encoder.levels[0].integrate(audio, visual)
    masks = [window(audio.shape[1], level.reach, audio.device) for level in model.encoder.levels]
    case.compare(
        {
            **produced,
            # The official order: slot 0 is the visual stream.
            "enc_v": output.encoding.audio,
            "enc_a": output.encoding.visual,
            "slot0_prob": produced["a_prob"],
            "slot1_prob": produced["v_prob"],
            "level_v": levels["visual_levels"][..., ::16],
            "level_a": levels["audio_levels"][..., ::16],
            "integrate0_v": first_visual[..., ::16],
            "integrate0_a": first_audio[..., ::16],
            "window_mask": torch.stack(masks),
        }
    )


def leap_forward(
    case: Case, model: torch.nn.Module, prefix: str = "", labels: torch.Tensor | None = None
) -> tuple[Output, Produced]:
    streams = [case.input(f"{prefix}{n}") for n in ("audio", "visual", "visual_st")]
    output = model(*streams, label_embeddings=labels)
    parse = output.parse
    decisions = make_task("avvp", AVVPConfig()).decide(parse)
    return output, {
        "enc_a": output.encoding.audio,
        "enc_v": output.encoding.visual,
        "leap_logits_a": parse.segment.audio.logit.transpose(1, 2),
        "leap_logits_v": parse.segment.visual.logit.transpose(1, 2),
        "global_prob": decisions["video"],
        "a_prob": parse.video.audio.probability,
        "v_prob": parse.video.visual.probability,
        "a_frame_prob": parse.segment.audio.probability,
        "v_frame_prob": parse.segment.visual.probability,
        "gated_pred_a": decisions["audio"],
        "gated_pred_v": decisions["visual"],
    }


def mmpyr_leap(case: Case, model: torch.nn.Module | None = None) -> None:
    model = model or build(case, "leap")
    labels = case.input("label")
    output, produced = leap_forward(case, model, labels=labels)
    queries = model.decoder.labels(labels)
    trace = model.decoder.trace(queries, output.encoding)
    produced["label_proj"] = queries[..., ::16]
    for stream, letter in (("audio", "a"), ("visual", "v")):
        produced[f"label_out_{letter}"] = trace[stream][-1]["labels"][..., ::16]
    case.compare(produced)


LEAP_TERMS = {
    "audio": "loss_video_a",
    "visual": "loss_video_v",
    "global": "loss_global",
    "segment_audio": "loss_seg_a",
    "segment_visual": "loss_seg_v",
    "similarity": "loss_avss",
}


def leap_task(case: Case) -> Task:
    config = case.config
    return make_task(
        "avvp",
        AVVPConfig(
            avss="official",
            avss_eps=config["eps"],
            avss_weight=config["w_avss"],
            segment_weight=config["w_temporal"],
        ),
    )


def leap_loss(case: Case) -> None:
    base = same_model(case)
    model = build(base, "leap")
    output, _ = leap_forward(base, model, labels=base.input("label"))
    labels = {
        "weak": case.labels_above("target"),
        "pseudo_audio": case.labels_above("temporal_pa"),
        "pseudo_visual": case.labels_above("temporal_pv"),
    }
    rows = torch.arange(len(labels["weak"]))
    none = torch.zeros(len(rows), 1, 1)
    batch = Batch(
        audio=none, visual=none, motion=None, row=rows, clip_id=[""] * len(rows), labels=labels
    )
    terms = leap_task(case).loss(output.parse, output.encoding, batch)
    total = sum(terms.values())
    total.backward()
    parameters = dict(model.named_parameters())
    case.compare(
        {
            **{LEAP_TERMS[name]: value for name, value in terms.items()},
            "loss_total": total,
            "target": labels["weak"],
            "temporal_pa": labels["pseudo_audio"],
            "temporal_pv": labels["pseudo_visual"],
            "grad_norms": grad_norms(base, "leap", model, case.json["grad_norm_names"]),
            "grad_fc_l_w": parameters["decoder.labels.weight"].grad[::16, ::5],
        }
    )


def train_mmpyr(case: Case) -> None:
    config = AVVPConfig(
        supervision="weak",
        audio_smooth=case.config["a_smooth"],
        visual_smooth=case.config["v_smooth"],
    )
    model, recorded = train(case, "mmpyr", make_task("avvp", config), llp_batch, build=build)
    names = {"audio": "loss_audio", "visual": "loss_visual", "global": "loss_global"}
    _, test = llp_forward(case, model, prefix="test.")
    slots = {"test_slot0_prob": test["a_prob"], "test_slot1_prob": test["v_prob"]}
    produced = {names.get(k, k): v for k, v in recorded.items()}
    case.compare({**produced, **{f"test_{k}": v for k, v in test.items()}, **slots})


def train_leap(case: Case) -> None:
    model, recorded = train(case, "leap", leap_task(case), llp_batch, build=build)
    _, test = leap_forward(case, model, prefix="test.")
    test["enc_a"], test["enc_v"] = test["enc_a"][..., ::16], test["enc_v"][..., ::16]
    produced = {LEAP_TERMS.get(k, k): v for k, v in recorded.items()}
    case.compare({**produced, **{f"test_{k}": v for k, v in test.items()}})


CASES = {
    "mmpyr_mmil": mmpyr_mmil,
    "mmpyr_leap": mmpyr_leap,
    "leap_loss": leap_loss,
    "train_mmpyr": train_mmpyr,
    "train_leap": train_leap,
}
