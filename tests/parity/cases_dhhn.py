"""Golden cases of DHHN and its guide networks."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.data.adapters.registry import make_task
from avplatform.hub.convert import published_labels
from avplatform.models.contracts import Encoding, FeatureSpec, Parse, Prediction, StreamPredictions
from avplatform.models.guides import Guides
from avplatform.models.layers.attention import PackedAttention
from avplatform.models.official import key_map, read_official
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.targets import kept_labels
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step
from tests.parity.cases_mgn import labelled, streams, weak_task
from tests.parity.cases_training import llp_batch, optim_config
from tests.parity.golden_case import Case

MAIN = "main_net."
_LAYER = {
    "self_attn": "self_attention",
    "linear1": "feedforward.inner",
    "linear2": "feedforward.outer",
    "norm1": "norm1",
    "norm2": "norm2",
}
GUIDE_RULES = (
    (r"audio_net\.fc_a\.(.+)", r"stem.audio.\1"),
    (r"video_net\.fc_v\.(.+)", r"stem.visual.\1"),
    (r"video_net\.fc_st\.(.+)", r"stem.motion.\1"),
    (r"video_net\.fc_fusion\.(.+)", r"stem.fusion.\1"),
    *(
        rule
        for theirs, ours in (("audio_net", "audio"), ("video_net", "visual"))
        for rule in (
            (rf"{theirs}\.fc_prob\.(.+)", rf"{ours}.classifier.\1"),
            (rf"{theirs}\.fc_frame_att\.(.+)", rf"{ours}.segment_attention.\1"),
            *(
                (rf"{theirs}\.audio_encoder\.layers\.(\d+)\.{a}\.(.+)", rf"{ours}.layers.\1.{b}.\2")
                for a, b in _LAYER.items()
            ),
        )
    ),
)
"""Names of the guides in the training script, whose checkpoints do not hold them."""


def guide_names(names: Any) -> dict[str, str]:
    """Names in our guide networks, by official name."""
    found = {}
    for name in names:
        for pattern, ours in GUIDE_RULES:
            if re.fullmatch(pattern, name):
                found[name] = re.sub(pattern, ours, name)
    return found


def build(case: Case) -> nn.Module:
    weights = {n.removeprefix(MAIN): w for n, w in case.weights().items() if not _of_guide(n)}
    return read_official("dhhn", weights, published_labels("dhhn"), heads=case.config["heads"])


def _of_guide(name: str) -> bool:
    return name.startswith(("audio_net.", "video_net."))


def guides(case: Case, **rates: float) -> Guides:
    config, weights = case.config, case.weights()
    shape = {name: weights[f"{name}.weight"].shape for name in ("audio_net.fc_a", "video_net.fc_v")}
    made = Guides(
        features=FeatureSpec(
            audio_dim=shape["audio_net.fc_a"][1],
            visual_dim=shape["video_net.fc_v"][1],
            motion_dim=weights["video_net.fc_st.weight"].shape[1],
        ),
        num_classes=len(weights["audio_net.fc_prob.bias"]),
        width=config["d"],
        heads=config["guide_heads"],
        hidden=config["guide_ffn"],
        pool_first=False,
        **rates,
    ).to(case.dtype)
    names = guide_names(weights)
    made.load_state_dict({ours: weights[name] for name, ours in names.items()})
    return made


def outputs(parse: Parse) -> dict[str, Any]:
    segment = [parse.segment.audio, parse.segment.visual]
    return {
        "global_prob": parse.video.av.probability,
        "a_prob": parse.video.audio.probability,
        "v_prob": parse.video.visual.probability,
        "frame_prob": torch.stack([p.probability for p in segment], dim=2),
    }


def dhhn_model(case: Case, model: nn.Module | None = None) -> None:
    model = model or build(case)
    parse, encoding = model(*streams(case))
    aux, encoder = encoding.aux, model.encoder
    produced: dict[str, Any] = {
        "stem_a": aux["stem_audio"][..., ::16],
        "stem_v": aux["stem_visual"][..., ::16],
        "enc_a": encoding.audio,
        "enc_v": encoding.visual,
        **outputs(parse),
    }
    for s, (hear, see) in enumerate(zip(encoder.audio_scales, encoder.visual_scales, strict=True)):
        heard, seen = hear(aux["stem_audio"]), see(aux["stem_visual"])
        found = encoder.layer(torch.cat([heard, seen])).chunk(2)
        for letter, convolved, attended in zip("av", (heard, seen), found, strict=True):
            produced[f"conv_{letter}_scale{s}"] = convolved[..., ::16]
            produced[f"attended_{letter}_scale{s}"] = attended[..., ::16]
    levels = {"a": aux["levels_audio"], "v": aux["levels_visual"]}  # (B, L, T, D)
    for letter, values in levels.items():
        produced[f"level_{letter}"] = values.transpose(1, 2)[..., ::16]
    both = torch.stack([levels["a"], levels["v"]], dim=3)  # (B, L, T, 2, D)
    produced["level_frame_prob"] = model.decoder.classifier(both).sigmoid()
    task = make_task("avvp", AVVPConfig(**published_labels("dhhn").task_config))
    decisions = task.decide(parse)
    case.compare({**produced, "map_a": decisions["audio"], "map_v": decisions["visual"]})


def dhhn_guides(case: Case) -> None:
    made = guides(case).eval()
    audio, visual = made.stem(*streams(case))
    produced: dict[str, Any] = {}
    for letter, guide, x in (("a", made.audio, audio), ("v", made.visual, visual)):
        produced[f"{letter}_prob"] = guide(x)
        passes = []
        for _ in range(case.config[f"{'audio' if letter == 'a' else 'visual'}_passes"]):
            passes.append(guide.encode(x))
            x = x + passes[-1]
        assert len(passes) == guide.passes
        produced[f"passes_{letter}"] = torch.stack(passes, dim=1)[..., ::16]
        produced[f"final_{letter}"] = x[..., ::16]
        produced[f"{letter}_frame_prob"] = guide.classifier(x).sigmoid()
    case.compare(produced)


MAIN_TERMS = ("audio", "visual", "global", "follow_audio", "follow_visual", "apart")
GUIDE_TERMS = ("guide_audio", "guide_visual", "guide_apart")


def named_terms(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms and both totals by their official names."""
    assert set(terms) >= {*MAIN_TERMS, *GUIDE_TERMS}
    return {
        **{f"loss_{name}": terms[name] for name in (*MAIN_TERMS, *GUIDE_TERMS)},
        "loss_total": sum(terms[name] for name in MAIN_TERMS),
        "loss_guides_total": sum(terms[name] for name in GUIDE_TERMS),
    }


def masks(weak: Tensor, removed: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Which labels are kept: those that are absent, or not removed."""
    return {
        f"keep_{stream}": 1 - ((weak == 1) & (values > threshold)).to(weak.dtype)
        for stream, values in removed.items()
    }


def removal_threshold(case: Case) -> float:
    text = " ".join(str(rule) for rule in case.json["labels"].values())
    found = re.search(r"fill\(remove_\*\) > (\d+(?:\.\d+)?)", text)
    assert found, f"{case.name}: no rule for removed labels"
    return float(found[1])


def dhhn_losses(case: Case) -> None:
    weak = case.labels_above("target")
    removed = {stream: case.input(f"remove_{stream}") for stream in ("audio", "visual")}
    keep = masks(weak, removed, removal_threshold(case))
    produced: dict[str, Any] = {"target": weak}
    for mode, labels in (("plain", {"weak": weak}), ("refined", {"weak": weak, **keep})):
        task = weak_task(case, guides=True, refined="given" if mode == "refined" else None)
        names = ("a_prob", "v_prob", "global_prob", "guide_a_prob", "guide_v_prob")
        given = {name: case.input(name).sigmoid().requires_grad_() for name in names}
        video = StreamPredictions(*(Prediction(given[n], "probability") for n in names[:3]))
        parse = Parse(
            segment=StreamPredictions(audio=video.audio, visual=video.visual), video=video
        )
        encoding = Encoding(
            audio=weak,
            visual=weak,
            aux={"guide_audio": given["guide_a_prob"], "guide_visual": given["guide_v_prob"]},
        )
        batch = labelled(labels)
        terms = task.loss(parse, encoding, batch)
        sum(terms.values()).backward()
        produced |= {f"{mode}.{name}": value for name, value in named_terms(terms).items()}
        produced |= {f"{mode}.grad_{name}": value.grad for name, value in given.items()}
        kept = kept_labels(batch)
        if mode == "refined":
            smoothing = (case.config["a_smooth"], case.config["v_smooth"])
            produced["refined_a"] = kept.target("audio", weak, smoothing[0])
            produced["refined_v"] = kept.target("visual", weak, smoothing[1])
    case.compare(produced)


def refined_batch(case: Case, step: int) -> Batch:
    batch = llp_batch(case, step)
    if case.has_input(f"step{step}.remove_audio"):
        removed = {s: case.input(f"step{step}.remove_{s}") for s in ("audio", "visual")}
        batch.labels |= masks(batch.labels["weak"], removed, removal_threshold(case))
    return batch


def without_dropout(model: nn.Module) -> nn.Module:
    """The model in training mode, where batch norms use the batch, without dropout."""
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, PackedAttention):
            module.dropout = 0.0
    return model


def train_dhhn(case: Case) -> None:
    rates = case.json["recipe"]["lr_per_network"]
    refined = case.has_input("step0.remove_audio")
    task: Task = weak_task(case, guides=True, refined="given" if refined else None)
    model = build(case)
    model.companion = guides(
        case,
        audio_rate=rates["audio_net"] / rates["main_net"],
        visual_rate=rates["video_net"] / rates["main_net"],
    )
    without_dropout(model)
    optimizer = build_optimizer(model, optim_config(case))
    parameters, keys = dict(model.named_parameters()), official_names(case)
    start = {name: value.detach().clone() for name, value in parameters.items()}
    batches = len(
        {key.split(".")[1] for key in case.json["inputs"] if key.startswith("input.step")}
    )
    recorded: dict[str, list[Tensor]] = {}
    first = None
    for step in range(case.json["steps"]):
        result = optimisation_step(
            model,
            task,
            refined_batch(case, step % batches),
            optimizer,
            lr=case.json["recipe"]["lr_per_step"][step],
        )
        for name, value in {**named_terms(result.losses), "grad_norm": result.grad_norm}.items():
            recorded.setdefault(name, []).append(value.detach())
        first = first or {name: p.grad.norm() for name, p in parameters.items()}
    order = [name for name in case.json["parameters"] if not name.endswith(BUFFERS)]
    zero = torch.zeros((), dtype=case.dtype)
    produced = {name: torch.stack(values) for name, values in recorded.items()}
    moved = {name: (value - start[name]).detach().norm() for name, value in parameters.items()}
    for what, found in (("grad_norms_step0", first), ("delta_norms", moved)):
        produced[what] = torch.stack([found[keys[n]] if n in keys else zero for n in order])
    norms = [
        scale.norm
        for scales in (model.encoder.audio_scales, model.encoder.visual_scales)
        for scale in scales
    ]
    produced["running_mean_norms"] = torch.stack([norm.running_mean.norm() for norm in norms])
    produced["running_var_norms"] = torch.stack([norm.running_var.norm() for norm in norms])
    test = outputs(model.eval()(*streams(case, "test.")).parse)
    taught = model.companion(*streams(case, "test."))
    test |= {"guide_a_prob": taught["guide_audio"], "guide_v_prob": taught["guide_visual"]}
    case.compare({**produced, **{f"test_{name}": value for name, value in test.items()}})


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def official_names(case: Case) -> dict[str, str]:
    """Names of the parameters of model and companion, by official name."""
    weights = case.weights()
    main = {n.removeprefix(MAIN): w for n, w in weights.items() if not _of_guide(n)}
    found = {MAIN + name: ours for name, ours in key_map("dhhn", main).items()}
    return found | {name: f"companion.{ours}" for name, ours in guide_names(weights).items()}


CASES = {
    "dhhn_model": dhhn_model,
    "dhhn_guides": dhhn_guides,
    "dhhn_losses": dhhn_losses,
    "train_dhhn": train_dhhn,
    "train_dhhn_refined": train_dhhn,
}
