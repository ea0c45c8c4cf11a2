"""Golden forward passes and the losses computed on them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from avplatform.hub.convert import PRESETS, published_labels
from avplatform.models.contracts import Encoding, Output
from avplatform.models.official import Labels, key_map, read_official
from avplatform.tasks.avel.losses import head_full_loss, head_weak_loss, mil_target
from avplatform.tasks.avvp.losses import han_loss, valor_loss
from tests.parity.golden_case import DEFAULT_GOLDEN, Case

Produced = dict[str, Any]


def official_options(case: Case) -> dict[str, Any]:
    """What shapes cannot tell, from the case's config."""
    config = case.config
    options: dict[str, Any] = {}
    heads = config.get("nhead", config.get("heads"))
    if heads is not None:
        options["heads"] = heads
    if "norm_where" in config:
        options["norm"] = config["norm_where"].removesuffix("_norm")
    return options


def build(case: Case, name: str, weak: bool = False) -> torch.nn.Module:
    """The model with the case's own weights, and the classes and decisions of a conversion."""
    labels = published_labels(name, weak=weak) if name in PRESETS else Labels(classes=[])
    return read_official(name, case.weights(), labels, **official_options(case))


def grad_norms(
    case: Case, name: str, model: torch.nn.Module, names: list[str], options: Any = None
) -> Tensor:
    """L2 norm of each official parameter's gradient; 0 if the forward pass does not read it."""
    parameters, keys = (
        dict(model.named_parameters()),
        key_map(name, case.weights(), **(options or official_options(case))),
    )
    values = [parameters[keys[n]].grad for n in names if n in keys]
    assert all(v is not None for v in values)
    found = {n: parameters[keys[n]].grad.norm() for n in names if n in keys}
    return torch.stack([found.get(n, torch.zeros((), dtype=case.dtype)) for n in names])


def llp_forward(case: Case, model: torch.nn.Module, prefix: str = "") -> tuple[Output, Produced]:
    audio, visual, motion = (
        case.input(f"{prefix}{name}") for name in ("audio", "visual", "visual_st")
    )
    output = model(audio, visual, motion)
    parse = output.parse
    stem = model.stem(audio, visual, motion)
    segment = [parse.segment.audio, parse.segment.visual]
    return output, {
        "stem_a": stem[0][..., ::16],
        "stem_v": stem[1][..., ::16],
        "enc_a": output.encoding.audio,
        "enc_v": output.encoding.visual,
        "global_prob": parse.video.av.probability,
        "a_prob": parse.video.audio.probability,
        "v_prob": parse.video.visual.probability,
        "frame_prob": torch.stack([p.probability for p in segment], dim=2),
        "frame_logits": torch.stack([p.logit for p in segment], dim=2),
    }


def han_mmil(case: Case, model: torch.nn.Module | None = None) -> None:
    case.compare(llp_forward(case, model or build(case, "han"))[1])


def same_model(case: Case) -> Case:
    """The case whose model and inputs this one shares, filled with this one's seed.

    Its names are known if it is absent.
    """
    name = case.config.get("same_model_as") or case.config["same_parameters_as"]
    folder = case.folder if (case.folder / f"{name}.json").exists() else DEFAULT_GOLDEN
    base = Case(name, folder)
    base.json["case_seed"] = case.json["case_seed"]
    base.json["inputs"] = {**base.json["inputs"], **case.json["inputs"]}
    return base


def han_loss_case(case: Case) -> None:
    base = same_model(case)
    model = build(base, "han")
    output, _ = llp_forward(base, model)
    target = case.labels_above("target")
    terms = han_loss(
        output.parse,
        target,
        audio_smooth=case.config["a_smooth"],
        visual_smooth=case.config["v_smooth"],
    )
    total = sum(terms.values())
    total.backward()
    parameters = dict(model.named_parameters())
    case.compare(
        {
            "target": target,
            "loss_audio": terms["audio"],
            "loss_visual": terms["visual"],
            "loss_global": terms["global"],
            "loss_total": total,
            "grad_norms": grad_norms(base, "han", model, case.json["grad_norm_names"]),
            "grad_fc_prob_w": parameters["decoder.classifier.weight"].grad[:, ::16],
            "grad_fc_a_w": parameters["stem.audio.weight"].grad[::16],
        }
    )


def valor(case: Case, model: torch.nn.Module | None = None) -> None:
    output, produced = llp_forward(case, model or build(case, "valor"))
    terms = valor_loss(
        output.parse,
        *(case.labels_above(name) for name in ("target", "temporal_pa", "temporal_pv")),
    )
    names = {"global": "loss_global", "segment_audio": "loss_seg_a", "segment_visual": "loss_seg_v"}
    produced.update({names[k]: v for k, v in terms.items()}, loss_total=sum(terms.values()))
    case.compare(produced)


def mmil_pool(case: Case) -> None:
    decoder = build(case, "mmil")
    parse = decoder(Encoding(audio=case.input("enc_a"), visual=case.input("enc_v")))
    segment = [parse.segment.audio, parse.segment.visual]
    case.compare(
        {
            "frame_logits": torch.stack([p.logit for p in segment], dim=2),
            "frame_prob": torch.stack([p.probability for p in segment], dim=2),
            "frame_att": parse.aux["segment_attention"],
            "av_att": parse.aux["modality_attention"],
            "global_prob": parse.video.av.probability,
            "a_prob": parse.video.audio.probability,
            "v_prob": parse.video.visual.probability,
        }
    )


def leap_decoder(case: Case) -> None:
    decoder = build(case, "leap_decoder")
    encoding = Encoding(audio=case.input("enc_a"), visual=case.input("enc_v"))
    queries = case.input("label")
    trace, produced = decoder.trace(queries, encoding), {}
    for stream, letter in (("audio", "a"), ("visual", "v")):
        for block, found in enumerate(trace[stream]):
            produced[f"logits_{letter}_{block}"] = found["scores"]
            produced[f"label_{letter}_{block}"] = found["labels"][..., ::8]
    case.compare(produced)
    # What predictions are made of is the mean over heads of the last block's scores.
    parse = decoder.project(queries, encoding)
    for stream in ("audio", "visual"):
        mean = trace[stream][-1]["scores"].mean(dim=1).transpose(1, 2)
        torch.testing.assert_close(getattr(parse.segment, stream).logit, mean, rtol=1e-4, atol=2e-5)


def ave(
    case: Case, model: torch.nn.Module | None = None, name: str = "ave", weak: bool = False
) -> None:
    output = (model or build(case, name, weak))(case.input("audio"), case.input("visual"))
    parse, aux = output.parse, output.encoding.aux
    segment, video = case.segment_labels(segments=case.json["inputs"]["input.audio"][1])
    if weak:
        terms = head_weak_loss(parse, mil_target(video, torch.float32, 29), kind="soft_margin")
    else:
        terms = head_full_loss(parse, segment, kind="soft_margin")
    case.compare(
        {
            "spatial_attention": aux["spatial_attention"],
            "attended_visual": aux["attended_visual"],
            "lstm_audio": aux["lstm_audio"],
            "lstm_video": aux["lstm_visual"],
            "u_audio": aux.get("audio_update"),
            "u_video": aux.get("visual_update"),
            "fusion": output.encoding.fused,
            "logits": parse.segment.av.logit,
            "prob": parse.segment.av.probability,
            "video_prob": parse.video.av.probability,
            "loss": sum(terms.values()),
        }
    )


CASES = {
    "han_mmil": han_mmil,
    "han_loss": han_loss_case,
    "valor_han_pre": valor,
    "valor_han_post": valor,
    "mmil_pool": mmil_pool,
    "leap_decoder_n1": leap_decoder,
    "leap_decoder_n2": leap_decoder,
    "ave_att": ave,
    "ave_att_weak": partial(ave, weak=True),
    "ave_dmrn": partial(ave, name="dmrn"),
}
