"""Golden cases of labels that are refined by a trained model (MA's exchange, JoMoLD's ratios)."""

from __future__ import annotations

import torch
from torch import Tensor

from avplatform.pseudo_labels.exchange import Exchanged, divisors, dropped_labels, errors
from avplatform.pseudo_labels.noise_ratio import class_means, noise_ratio
from avplatform.tasks.avvp.losses import video_probabilities
from avplatform.tasks.avvp.targets import Kept
from tests.parity.cases_models import build, same_model
from tests.parity.golden_case import Case

TABLES = (
    "audio",
    "visual",
    "audio_other_visual",
    "visual_other_visual",
    "audio_other_audio",
    "visual_other_audio",
)


def refined(found: Exchanged, target: Tensor) -> dict[str, Tensor]:
    scale = divisors(found.audio, target), divisors(found.visual, target)
    audio, visual = dropped_labels(found, target, scale)
    return {
        "divisor_a": scale[0],
        "divisor_v": scale[1],
        "removed_a": audio,
        "removed_v": visual,
    }


def ma_labels(case: Case) -> None:
    given = tuple(f"given_{name}" for name in TABLES)
    found = Exchanged(*(case.stored[name] for name in given))
    target = case.stored["target"]
    produced = refined(found, target)
    low = torch.full_like(target, 0.01)
    perfect = refined(Exchanged(target, target, low, low, low, low), target)
    keep = {name: (~produced[f"removed_{name}"]).float() for name in "av"}
    case.compare(
        {
            **produced,
            "error_a": errors(found.audio, target),
            "error_v": errors(found.visual, target),
            "removed_a_perfect_base": perfect["removed_a"],
            "removed_v_perfect_base": perfect["removed_v"],
            **retrain_targets(target, keep),
        },
        given=(*given, "target"),
    )


def retrain_targets(target: Tensor, keep: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = Kept(audio=keep["a"], visual=keep["v"], whole="official")
    return {
        "retrain_target_a": kept.target("audio", target, 1.0),
        "retrain_target_v": kept.target("visual", target, 0.9),
        "retrain_target_global": kept.global_target(target),
        "retrain_target_global_intended": Kept().global_target(target),
    }


def ma_exchange(case: Case) -> None:
    model = build(same_model(case), "ma")
    own = [case.input(name) for name in ("audio", "visual", "visual_st")]
    other = [case.input(f"other.{name}") for name in ("audio", "visual", "visual_st")]
    target = (case.input("target") > 0.4).float()
    target[target.sum(dim=1) == 0, 0] = 1.0
    pairs = (own, [own[0], *other[1:]], [other[0], *own[1:]])
    found = Exchanged(*(p for pair in pairs for p in video_probabilities(model(*pair).parse)[:2]))
    probabilities = dict(zip((f"prob_{name}" for name in TABLES), found, strict=True))
    case.compare({**probabilities, **refined(found, target), "target": target})


def jomold_noise_ratio(case: Case) -> None:
    target, counts = case.stored["target"], case.stored["label_counts"]
    batches = torch.arange(len(target)).split(case.config["batches"])
    produced = {}
    for name, threshold, smoothing in (("a", "a_thres", "a_smooth"), ("v", "v_thres", "v_smooth")):
        probability = case.stored[f"given_{name}_prob"]
        mean = class_means(probability, batches)
        smoothed = case.config[smoothing] + (1 - case.config[smoothing]) / 2
        produced[f"mean_{name}"] = mean
        produced[f"ratio_{name}"] = noise_ratio(
            probability,
            target,
            mean,
            target=smoothed,
            threshold=case.config[threshold],
            counts=counts,
        )
    case.compare(produced, given=("given_a_prob", "given_v_prob", "target", "label_counts"))


CASES = {
    "ma_labels": ma_labels,
    "ma_exchange": ma_exchange,
    "jomold_noise_ratio": jomold_noise_ratio,
}
