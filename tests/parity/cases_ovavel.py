"""Golden labels and metrics of open-vocabulary localization."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from avplatform.data.adapters.ovave.annotations import SPLITS, read_annotations
from avplatform.data.adapters.ovave.classes import BACKGROUND, EVENTS, SEEN, TEXTS, UNSEEN
from avplatform.tasks.ovavel.metrics import NO_LABEL, Arrays, clip_figures
from tests.parity.golden_case import Case, close

NAMES = {"accuracy": "accuracy", "segment_f1": "segment_F", "event_f1": "event_F"}


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, np.uint8).tobytes()).hexdigest()


def labels(case: Case) -> None:
    """The labels of all real rows; training counts by the shorter list of 46 classes."""
    folder = os.environ.get("AVP_OVAVE_DIR")
    if not folder:
        pytest.skip("AVP_OVAVE_DIR names no folder of OV-AVEBench's annotation files")
    data = read_annotations(folder)
    shorter = np.array([SEEN.index(n) if n in SEEN else -1 for n in EVENTS] + [len(SEEN)])
    for name, split in SPLITS.items():
        expected, rows = case.json["splits"][name], data.splits[split]
        segment, video, event = data.segment[rows], data.video[rows], data.event[rows]
        if name == "train":
            segment, video = shorter[segment], shorter[video]
        background = len(SEEN) if name == "train" else BACKGROUND
        texts = [t for t, n in zip(TEXTS["other"], (*EVENTS, ""), strict=True)
                 if name != "train" or n not in UNSEEN]  # fmt: skip
        assert expected == {
            "clips": len(rows),
            "texts": len(texts),
            "first_text": texts[0],
            "last_text": texts[-1],
            "background": background,
            "event_segments": int(event.sum()),
            "empty_clips": int((video == background).sum()),
            "sha256_segment": digest(segment),
            "sha256_clip": digest(video),
            "sha256_event": digest(event),
            "first_rows": segment[:3].tolist(),
        }


def of_agreement(agree: np.ndarray, clip_class: np.ndarray, background: int) -> np.ndarray:
    """Labels of the F-scores by the published rule; agreeing segments of `other` have none."""
    inside = np.where(clip_class == background, NO_LABEL, clip_class)
    return np.where(agree == 1, inside[:, None], background)


def figures(labels: np.ndarray, true: np.ndarray, background: int) -> Arrays:
    """Figures per clip."""
    return clip_figures(labels, true, background + 1)


def batched(clips: Arrays, size: int) -> dict[str, float]:
    """Published figures: F-scores are means over batches, each the mean over its clips."""
    starts = range(0, len(clips["accuracy"]), size)
    return {
        name: 100 * float(np.mean([values[at : at + size].mean() for at in starts]))
        if name != "accuracy"
        else 100 * float(values.mean())
        for name, values in clips.items()
    }


def check_figures(name: str, clips: Arrays, expected: dict, tolerance: dict) -> None:
    means = {n: 100 * float(v.mean()) for n, v in clips.items()}
    ways = {"per_video_mean": means, "per_clip_mean": means}
    for way, values in expected.items():
        found = ways.get(way) or batched(clips, int(way.rsplit("_", 1)[1]))
        for key, value in values.items():
            close(f"{name}.{way}.{key}", found[NAMES[key]], value, tolerance)


def metrics(case: Case) -> None:
    """Every figure by group, batch size and clip, on the real test labels in their codes."""
    stored = {name: values.numpy() for name, values in case.stored.items()}
    background, tolerance = case.json["background"], case.json["figures_tolerance"]
    assert case.json["classes"] == list(EVENTS) and case.json["unseen"] == list(UNSEEN)
    category = stored["category"].astype(np.int64)
    event = np.unpackbits(stored["event_bits"], axis=1)[:, :10]
    agree = np.unpackbits(stored["agreement.agree_bits"], axis=1)[:, :10]
    true = np.where(event == 1, category[:, None], background)
    video = np.where(event.any(axis=1), category, background)
    clip_class = stored["agreement.clip_class"].astype(np.int64)
    predictions = {
        "corrupted": stored["corrupted"].astype(np.int64),
        "random": stored["random"].astype(np.int64),
        "agreement": of_agreement(agree, clip_class, background),
    }
    anchors = {
        "always_background": np.full_like(true, background),
        "class_everywhere": np.repeat(category[:, None], 10, axis=1),
        "class_everywhere_empty_clips_known": np.repeat(video[:, None], 10, axis=1),
        "perfect": true,
    }
    unseen = np.isin(category, [EVENTS.index(name) for name in UNSEEN])
    groups = {"seen": ~unseen, "unseen": unseen, "total": np.ones(len(true), bool)}
    for name, labels in (predictions | anchors).items():
        clips = figures(labels, true, background)
        for group, chosen in groups.items():
            part = {key: values[chosen] for key, values in clips.items()}
            expected = case.json["figures"].get(name, {}).get(group) or {
                "per_video_mean": case.json["anchors"][name][group]
            }
            check_figures(f"{name}.{group}", part, expected, tolerance)
        for key, ours in NAMES.items():
            if f"{name}.{key}" in stored:
                close(f"{name}.{key}", clips[ours], stored[f"{name}.{key}"], case.json["tolerance"])


def metrics_random(case: Case) -> None:
    """Two sets of made-up clips, of 68 and of 47 labels, in both forms of a decision."""
    for prefix, background in (("k68", 67), ("k47", 46)):
        stored = {
            name.removeprefix(f"{prefix}."): values.numpy()
            for name, values in case.stored.items()
            if name.startswith(f"{prefix}.")
        }
        category = stored["category"].astype(np.int64)
        true = np.where(stored["event"] == 1, category[:, None], background)
        clip_class = stored["clip_class"].astype(np.int64)
        forms = {
            "segment_form": stored["segment"].astype(np.int64),
            "agreement_form": of_agreement(stored["agree"], clip_class, background),
        }
        for form, labels in forms.items():
            clips = figures(labels, true, background)
            for key, ours in NAMES.items():
                name = f"{form}.{key}"
                close(f"{prefix}.{name}", clips[ours], stored[name], case.json["tolerance"])
            expected = case.json["figures"][f"{prefix}.{form}"]
            check_figures(f"{prefix}.{form}", clips, expected, case.json["figures_tolerance"])


CASES = {
    "ovavel_labels": labels,
    "ovavel_metrics": metrics,
    "ovavel_metrics_random": metrics_random,
}
