"""Golden cases of MGN."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.data.adapters.registry import make_task
from avplatform.hub.convert import published_labels
from avplatform.models.contracts import Encoding, Parse, Prediction, StreamPredictions
from avplatform.models.layers.grouping import Grouping
from avplatform.models.official import read_official
from avplatform.models.official.mgn import grouping_rules
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.batch import Batch
from tests.parity.cases_training import llp_batch, train
from tests.parity.golden_case import Case

HEADS = ("audio", "visual")


def reading(case: Case) -> dict[str, Any]:
    """What shapes cannot tell, from the case's config."""
    config = case.config
    return {
        "heads": config["heads"],
        "assignment": config["unimodal_assign"],
        "joint_assignment": config["crossmodal_assign"],
    }


def build(case: Case, name: str = "mgn") -> nn.Module:
    return read_official(name, case.weights(), published_labels(name), **reading(case))


def streams(case: Case, prefix: str = "") -> list[Tensor]:
    return [case.input(f"{prefix}{name}") for name in ("audio", "visual", "visual_st")]


def outputs(parse: Parse) -> dict[str, Any]:
    """Probabilities as published; those of segments are not limited to 1 there."""
    audio, visual = parse.video.audio.probability, parse.video.visual.probability
    frames = {
        "a_frame_prob": audio[:, None] * parse.aux["factor_audio"].mT,
        "v_frame_prob": visual[:, None] * parse.aux["factor_visual"].mT,
    }
    for name, stream in zip(frames, HEADS, strict=True):
        found = getattr(parse.segment, stream).probability
        torch.testing.assert_close(found, frames[name].clamp(max=1))
    return {
        "global_prob": parse.video.av.probability,
        "a_prob": audio,
        "v_prob": visual,
        "class_logits_a": parse.aux["token_scores_audio"],
        "class_logits_v": parse.aux["token_scores_visual"],
        **frames,
    }


def mgn_model(case: Case, model: nn.Module | None = None) -> None:
    model = model or build(case)
    parse, encoding = model(*streams(case))
    aux, encoder, decoder = encoding.aux, model.encoder, model.decoder
    time = encoder.time_grouping(aux["plain_audio"], aux["stem_visual"])
    audio = decoder.audio_grouping(encoding.audio, aux["tokens_audio"])
    visual = decoder.visual_grouping(encoding.visual, aux["tokens_visual"])
    both = decoder.joint_blocks(torch.cat([audio.groups, visual.groups], dim=1)).chunk(2, dim=1)
    joint = decoder.joint_grouping(*both)
    decisions = make_task("avvp", AVVPConfig(supervision="weak")).decide(parse)
    sampled = {
        "stem_a": aux["stem_audio"],
        "stem_v": aux["stem_visual"],
        "self_a": aux["plain_audio"],
        "self_v": encoding.visual,
        "tokens_a": aux["tokens_audio"],
        "tokens_v": aux["tokens_visual"],
        "time_tokens": time.tokens,
        "group_tokens_a": audio.tokens,
        "group_tokens_v": visual.tokens,
        "groups_a": audio.groups,
        "groups_v": visual.groups,
        "groups_joint": joint.groups,
        "joint_a": both[0],
        "joint_v": both[1],
    }
    case.compare(
        {
            **{name: value[..., ::4] for name, value in sampled.items()},
            **outputs(parse),
            "enc_a": encoding.audio,
            "enc_v": encoding.visual,
            "time_assignment": aux["time_assignment"],
            "assignment_a": parse.aux["assignment_audio"],
            "assignment_v": parse.aux["assignment_visual"],
            "assignment_joint": joint.assignment,
            "segment_factor_a": parse.aux["factor_audio"],
            "segment_factor_v": parse.aux["factor_visual"],
            "map_a": decisions["audio"],
            "map_v": decisions["visual"],
        }
    )


def mgn_grouping(case: Case) -> None:
    config, produced = case.config, {}
    sizes = SimpleNamespace(
        heads=config["heads"],
        hidden=config["channel_ffn"],
        token_hidden=config["token_ffn"],
        gumbel_noise=True,
    )
    for mode in ("soft", "hard", "gumbel_soft", "gumbel_hard"):
        block = Grouping(sizes, config["d"], tokens=config["groups"], hard=mode.endswith("hard"))
        keys = renamed(case.weights())
        block.load_state_dict({keys[name]: value for name, value in case.weights().items()})
        rows, tokens = (case.input(n).requires_grad_() for n in ("x", "tokens"))
        noise = case.input("noise").squeeze(1) if mode.startswith("gumbel") else None
        found = block.train(noise is not None)(rows, tokens, noise)
        (found.groups * case.input("probe")).sum().backward()
        parameters = dict(block.named_parameters())
        norms = [parameters[keys[name]].grad.norm() for name in case.json["parameters"]]
        produced |= {
            f"{mode}.groups": found.groups[..., ::4],
            f"{mode}.assignment": found.assignment,
            f"{mode}.segment_factor": 1 + found.soft.softmax(dim=-1),
            f"{mode}.grad_x": rows.grad[..., ::4],
            f"{mode}.grad_tokens": tokens.grad[..., ::4],
            f"{mode}.grad_norms": torch.stack(norms),
        }
        heard = block.rows_norm(rows)
        produced["raw_scores"] = (
            block.query(found.tokens) @ block.key(heard).mT / config["d"] ** 0.5
        )
    case.compare(produced)


def renamed(weights: dict[str, Tensor]) -> dict[str, str]:
    """The names of a grouping block's tensors in our block, by their official names."""
    keys = {}
    for name in weights:
        pattern, ours = next(rule for rule in grouping_rules() if re.fullmatch(rule[0], name))
        keys[name] = re.sub(pattern, ours, name)
    return keys


TERMS = {
    "audio": "loss_audio",
    "visual": "loss_visual",
    "global": "loss_global",
    "class_audio": "loss_class_a",
    "class_visual": "loss_class_v",
}


def weak_task(case: Case, **options: Any) -> Any:
    smoothing = dict(audio_smooth=case.config["a_smooth"], visual_smooth=case.config["v_smooth"])
    return make_task("avvp", AVVPConfig(supervision="weak", **smoothing, **options))


def labelled(labels: dict[str, Tensor]) -> Batch:
    """A batch of labels alone."""
    count = len(labels["weak"])
    none = torch.zeros(count, 1, 1)
    rows = torch.arange(count)
    return Batch(
        audio=none, visual=none, motion=None, row=rows, clip_id=[""] * count, labels=labels
    )


def mgn_losses(case: Case) -> None:
    names = ("global_prob", "a_prob", "v_prob", "class_logits_a", "class_logits_v")
    given = {name: case.input(name) for name in names}
    given = {n: x.sigmoid() if n.endswith("prob") else x for n, x in given.items()}
    given = {name: value.requires_grad_() for name, value in given.items()}
    video = StreamPredictions(
        *(Prediction(given[n], "probability") for n in ("a_prob", "v_prob", "global_prob"))
    )
    parse = Parse(
        segment=StreamPredictions(audio=video.audio, visual=video.visual),
        video=video,
        aux={
            "token_scores_audio": given["class_logits_a"],
            "token_scores_visual": given["class_logits_v"],
        },
    )
    target = case.labels_above("target")
    encoding = Encoding(audio=target, visual=target)
    terms = weak_task(case).loss(parse, encoding, labelled({"weak": target}))
    total = sum(terms.values())
    total.backward()
    case.compare(
        {
            **{TERMS[name]: value for name, value in terms.items()},
            **{f"grad_{name}": value.grad for name, value in given.items()},
            "loss_total": total,
            "target": target,
        }
    )


def train_mgn(case: Case) -> None:
    choices = []
    clips = case.stored["time_choice"].shape[1]

    def watched(case: Case, name: str) -> nn.Module:
        model = build(case, name)

        def note(module: nn.Module, given: Any, found: Any) -> None:
            chosen = found.assignment.argmax(dim=1)  # (B, T)
            empty = chosen.new_zeros(clips - len(chosen), chosen.shape[1])
            choices.append(torch.cat([chosen, empty]))

        model.encoder.time_grouping.register_forward_hook(note)
        return model

    model, recorded = train(
        case, "mgn", weak_task(case), llp_batch, build=watched, options=reading(case)
    )
    chosen = torch.stack(choices)
    test = outputs(model(*streams(case, "test.")).parse)
    produced = {TERMS.get(name, name): value for name, value in recorded.items()}
    case.compare({**produced, **{f"test_{n}": v for n, v in test.items()}, "time_choice": chosen})


CASES = {
    "mgn_model": mgn_model,
    "mgn_hard": mgn_model,
    "mgn_grouping": mgn_grouping,
    "mgn_losses": mgn_losses,
    "train_mgn": train_mgn,
}
