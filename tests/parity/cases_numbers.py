"""Golden losses, metrics and schedules: no model in them."""

from __future__ import annotations

import os
import warnings

import numpy as np
import torch

from avplatform.config.recipes import RECIPES
from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from avplatform.tasks.avel import AVELConfig
from avplatform.tasks.avel.losses import (
    cmbs_full_loss,
    event_class_target,
    head_full_loss,
    head_weak_loss,
    mil_target,
    pair_similarity_loss,
    pair_target,
    proportion_target,
)
from avplatform.tasks.avel.metrics import segment_accuracy
from avplatform.tasks.avvp.losses import predicted_events
from avplatform.tasks.avvp.metrics import averages, classwise, overlap_subsets, score
from avplatform.tasks.losses import event_iou, released_target, segment_similarity, similarity_loss
from avplatform.training.optim import learning_rate
from tests.parity.golden_case import DEFAULT_GOLDEN, Case, close

SCHEDULES = {
    "HAN": "han",
    "MM_Pyr": "mmpyr",
    "LEAP_script": "leap",
    "LEAP_paper_20_epochs": "leap-paper",
    "VALOR": "valor",
    "VALOR_plus": "valor-plus",
}


def avss_loss(case: Case) -> None:
    audio = case.input("enc_a").requires_grad_()
    mixed = (0.7 * case.input("enc_a") + case.input("enc_v")).detach().requires_grad_()
    maps = case.stored["pa"], case.stored["pv"]
    eps = case.config["eps"]
    official = similarity_loss(audio, mixed, *maps, form="official", eps=eps)
    official.backward()
    probabilities = {
        name: case.input(name).sigmoid() for name in ("a_prob", "v_prob", "a_frame", "v_frame")
    }
    parse = Parse(
        segment=StreamPredictions(
            audio=Prediction(probabilities["a_frame"], "probability"),
            visual=Prediction(probabilities["v_frame"], "probability"),
        ),
        video=StreamPredictions(
            audio=Prediction(probabilities["a_prob"], "probability"),
            visual=Prediction(probabilities["v_prob"], "probability"),
        ),
    )
    predicted = predicted_events(parse)
    case.compare(
        {
            "target_official": released_target(*maps, eps=eps),
            "eiou_empty0": event_iou(*maps, empty_pair="zero")[0],
            "eiou_empty1": event_iou(*maps, empty_pair="one")[0],
            "cosine": segment_similarity(audio, mixed),
            "loss_official": official,
            "grad_a": audio.grad[..., ::16],
            "grad_v": mixed.grad[..., ::16],
            "loss_paper_empty0": similarity_loss(
                audio, mixed, *maps, form="paper", empty_pair="zero"
            ),
            "loss_paper_empty1": similarity_loss(
                audio, mixed, *maps, form="paper", empty_pair="one"
            ),
            "loss_pred_labels": similarity_loss(audio, mixed, *predicted, form="official", eps=eps),
        },
        given=("pa", "pv"),
    )


def leap_paper_loss(case: Case) -> None:
    produced = {}
    for prefix, names in (
        ("", ("enc_a", "enc_v", "pa", "pv")),
        ("example_", ("example_a", "example_v", *[None] * 2)),
    ):
        audio = case.input(names[0])
        visual = 0.7 * audio + case.input(names[1])
        maps = case.stored[f"{prefix}pa"], case.stored[f"{prefix}pv"]
        produced[f"{prefix}cosine"] = segment_similarity(audio, visual)
        produced[f"{prefix}valid"] = event_iou(*maps)[1]
        produced[f"{prefix}target_official"] = released_target(*maps, eps=case.config["eps"])
        for choice in ("zero", "one", "ignore"):
            a, v = audio.clone().requires_grad_(), visual.clone().requires_grad_()
            loss = similarity_loss(a, v, *maps, form="paper", empty_pair=choice)
            loss.backward()
            produced[f"{prefix}eiou_empty_{choice}"] = event_iou(*maps, empty_pair=choice)[0]
            produced[f"{prefix}loss_empty_{choice}"] = loss
            produced[f"{prefix}grad_a_empty_{choice}"] = a.grad
            produced[f"{prefix}grad_v_empty_{choice}"] = v.grad
    case.compare(produced, given=("pa", "pv", "example_pa", "example_pv"))


def lr_schedules(case: Case) -> None:
    names = [name for name in case.json if name in SCHEDULES]
    assert names, "no known recipe in the file"
    for name in names:
        recipe, expected = RECIPES[SCHEDULES[name]], case.json[name]
        rates = [
            learning_rate(recipe.schedule, base_lr=recipe.optim.lr, epoch=e, epochs=recipe.epochs)
            for e in range(1, len(expected) + 1)
        ]
        close(f"lr_schedules.{name}", rates, expected, {"atol": 0.0, "rtol": 1e-8})


def unpack(case: Case, name: str) -> np.ndarray:
    """Packed maps, 25 classes by 10 segments -> bool [N, 10, 25]."""
    bits = np.unpackbits(case.stored[name].numpy(), axis=1)[:, :250]
    return bits.reshape(-1, 25, 10).transpose(0, 2, 1).astype(bool)


PACKED = ("gt_a", "gt_v", "pred_a", "pred_v")
METRIC_NAMES = {"seg": "segment", "evt": "event"}


def product_name(name: str) -> str:
    """`seg_TypeAV` -> `segment_Type@AV`."""
    level, kind = name.split("_")
    return (
        f"{METRIC_NAMES[level]}_{kind.replace('TypeAV', 'Type@AV').replace('EventAV', 'Event@AV')}"
    )


def check_averages(name: str, actual: dict, expected: dict, tolerance: dict) -> None:
    for key, value in expected.items():
        close(f"{name}.{key}", actual[product_name(key)], value, tolerance)


def metrics(case: Case) -> None:
    tolerance, truth = case.json["tolerance"], (unpack(case, "gt_a"), unpack(case, "gt_v"))
    predicted = unpack(case, "pred_a"), unpack(case, "pred_v")
    table = score(*predicted, *truth)
    check_averages(case.name, averages(table), case.json["averages"], tolerance)
    readings = {"audio_overlap": "audio", "visual_overlap": "visual"}
    subsets = overlap_subsets(*truth)
    produced = {"per_video": table}
    for name, subset in case.json.get("subsets", {}).items():
        chosen = subsets[readings.get(name, name)]
        produced[f"mask_{name}"] = chosen
        assert (chosen.sum(), (~chosen).sum()) == (subset["n_overlap"], subset["n_nonoverlap"])
        check_averages(f"{case.name}.{name}", averages(table[chosen]), subset["overlap"], tolerance)
        check_averages(
            f"{case.name}.{name}.not", averages(table[~chosen]), subset["nonoverlap"], tolerance
        )
    rows = classwise(*predicted, *truth)
    produced["classwise_segment"] = np.stack([rows[n] for n in ("audio", "visual", "event", "av")])
    case.compare(produced, given=PACKED)


def metrics_sanity(case: Case) -> None:
    """Trivial predictors on the real test annotations.

    Without the csv files, only those that need no weak labels.
    """
    folder = os.environ.get("AVP_LLP_DIR")
    if folder:
        data = read_annotations(folder)
        rows = data.splits["test"]
        a, v = data.dense_audio[rows].astype(bool), data.dense_visual[rows].astype(bool)
        weak = np.broadcast_to(data.weak[rows][:, None, :].astype(bool), a.shape)
    else:
        maps = Case(
            "metrics_llp",
            case.folder if (case.folder / "metrics_llp.json").exists() else DEFAULT_GOLDEN,
        )
        a, v = (unpack(maps, name) for name in ("gt_a", "gt_v"))
        weak = None
    assert len(a) == case.json["n"]
    predictors = {
        "all_zero": (a & False, v & False),
        "all_one": (a | True, v | True),
        "ground_truth": (a, v),
        "audio_gt_for_both": (a, a),
        "visual_gt_for_both": (v, v),
        "swapped_modalities": (v, a),
    }
    if weak is not None:
        predictors |= {
            "weak_label_every_segment": (weak, weak),
            "gt_gated_by_weak_label": (a & weak, v & weak),
        }
    else:
        warnings.warn(
            "metrics_sanity: three predictors need the weak labels; "
            "set AVP_LLP_DIR to check them too",
            stacklevel=1,
        )
    tolerance = {"atol": case.json["tolerance"], "rtol": 0.0}
    for name, expected in case.json["results"].items():
        base = name.removesuffix("__variant_audio_csv")
        truth_audio = a
        if base not in predictors and weak is None:
            continue
        if base != name:
            variant = os.path.join(folder, "AVVP_eval_audio.mm_pyramid_variant.csv")
            truth_audio = (
                read_annotations(folder, audio_file=variant).dense_audio[rows].astype(bool)
            )
        table = score(*predictors[base], truth_audio, v)
        check_averages(f"{case.name}.{name}", averages(table), expected, tolerance)
    for stream, maps in (("audio", a), ("visual", v), ("av", a & v)):
        assert maps.sum() == case.json["gt_positive_segments"][stream]


def avel_losses_metrics(case: Case) -> None:
    """Losses, targets and decisions of AVE, PSP and CMBS."""
    segment, video = case.segment_labels(segments=case.json["inputs"]["input.scores"][1])
    onehot = torch.nn.functional.one_hot
    y = onehot(segment, 29).float()
    scores, similarity = case.input("scores") + 1.5 * y, case.input("similarity")
    event, target = (segment != 28).float(), pair_target(segment)

    def head(video_logits: torch.Tensor) -> Parse:
        return Parse(
            segment=StreamPredictions(av=Prediction(scores, activation="softmax")),
            video=StreamPredictions(av=Prediction(video_logits, activation="softmax")),
        )

    maximum, mean = head(scores.amax(dim=1)), head(scores.mean(dim=1))
    label = event_class_target(segment, 28)
    gate = case.input("gate").sigmoid()
    cmbs = Parse(
        video=StreamPredictions(
            av=Prediction(case.input("event_class") + 2 * onehot(label, 28), activation="softmax")
        ),
        relevance=Prediction(case.input("is_event") + 2 * event - 1),
        aux={"gate": gate, "class_scores": case.input("cas")},
    )
    terms = cmbs_full_loss(cmbs, segment, gate_loss="official")
    weak = Parse(
        video=cmbs.video,
        relevance=Prediction(gate, "probability"),
        aux={"raw_logits": case.input("raw_logits") + 2 * onehot(video, 29)},
    )
    found = make_task("avel", AVELConfig()).decide(maximum)["segment"]
    by_cmbs = make_task("avel", AVELConfig()).decide(cmbs)["segment"]
    by_weak = make_task("avel", AVELConfig(supervision="weak", weak_relevance="official")).decide(
        weak
    )["segment"]
    accuracy = segment_accuracy(found.numpy(), segment.numpy())
    case.compare(
        {
            "avps_loss": pair_similarity_loss(similarity, target),
            "avps_loss_all_negative": pair_similarity_loss(-similarity.abs(), target),
            "soft_target": target,
            "ce_segments": head_full_loss(maximum, segment, kind="ce")["segment"],
            "mlsm_segments": head_full_loss(maximum, segment, kind="soft_margin")["segment"],
            "mlsm_video": head_weak_loss(
                maximum, mil_target(video, torch.float32, 29), kind="soft_margin"
            )["video"],
            "psp_weak_bce": head_weak_loss(
                mean, proportion_target(segment, torch.float32, 29), kind="bce"
            )["video"],
            "cmbs_bce_is_event": terms["relevance"],
            "cmbs_bce_gate": terms["gate"],
            "cmbs_ce_event": terms["event"],
            "cmbs_ce_cas": terms["class_scores"],
            "cmbs_event_target": label,
            "acc_ave": accuracy,
            "acc_psp": accuracy,
            "acc_cmbs_full_percent": 100 * segment_accuracy(by_cmbs.numpy(), segment.numpy()),
            "acc_cmbs_weak_percent": 100 * segment_accuracy(by_weak.numpy(), segment.numpy()),
            "cmbs_weak_fraction_marked_event": (gate.sigmoid() > 0.5).double().mean(),
            "pred_argmax29": found,
            "pred_cmbs_full": by_cmbs,
            "pred_cmbs_weak": by_weak,
        }
    )


CASES = {
    "avss_loss": avss_loss,
    "leap_paper_loss": leap_paper_loss,
    "lr_schedules": lr_schedules,
    "metrics_random": metrics,
    "metrics_llp": metrics,
    "metrics_sanity": metrics_sanity,
    "avel_losses_metrics": avel_losses_metrics,
}
