"""The task's own accumulator on the real test annotations meets the golden figures and anchors."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from avplatform.data.adapters.ovave.annotations import read_annotations
from avplatform.data.adapters.ovave.classes import BACKGROUND
from avplatform.data.adapters.registry import make_task
from avplatform.tasks.batch import Batch
from avplatform.tasks.ovavel.metrics import FIGURES, GROUPS, OVAVELMetrics
from tests.parity.cases_ovavel import NAMES
from tests.parity.golden_case import DEFAULT_GOLDEN, Case

FOLDER = os.environ.get("AVP_OVAVE_DIR")
pytestmark = pytest.mark.skipif(not FOLDER, reason="AVP_OVAVE_DIR names no annotations")
SIZES = (1, 32, 7, 500, 64)
"""Clips per batch, in turn."""
ANCHORS = {
    "always_background": "always_background",
    "true_category_everywhere": "class_everywhere",
    "true_clip_class_everywhere": "class_everywhere_empty_clips_known",
}
ROUNDED = {
    "always_background": ((39.2, 34.1, 29.8), (38.1, 33.2, 28.2), (38.5, 33.5, 28.7)),
    "true_category_everywhere": ((60.8, 54.0, 50.4), (61.9, 54.1, 50.0), (61.5, 54.0, 50.1)),
    "true_clip_class_everywhere": ((85.9, 79.1, 75.5), (85.6, 77.8, 73.8), (85.7, 78.2, 74.3)),
}
"""By anchor, the three figures of seen, unseen and total, as docs/ovavel.md gives them."""


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("ovavel_metrics", DEFAULT_GOLDEN)


@pytest.fixture(scope="module")
def real(case):
    data = read_annotations(FOLDER)
    rows = data.splits["test"]
    return {
        "segment": torch.from_numpy(data.segment[rows]),
        "video": torch.from_numpy(data.video[rows]),
        "category": torch.from_numpy(data.category[rows].astype(np.int64)),
    }


def scored(labels: dict, **decisions: np.ndarray) -> OVAVELMetrics:
    """The metrics after batches of several sizes, the last clips first."""
    metrics, left, turn = make_task("ovavel").metrics(), len(labels["video"]), 0
    while left:
        rows = torch.arange(max(0, left - SIZES[turn % len(SIZES)]), left)
        empty = torch.zeros(len(rows), 10, 1)
        batch = Batch(
            audio=empty,
            visual=empty,
            motion=None,
            row=rows,
            clip_id=[str(row) for row in rows.tolist()],
            labels={name: values[rows] for name, values in labels.items()},
        )
        metrics.update({n: torch.from_numpy(x)[rows] for n, x in decisions.items()}, batch)
        left, turn = int(rows[0]), turn + 1
    assert turn > 10
    return metrics


def by_group(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    """Figures of the accumulator by group and name, without means."""
    starts = {group: "" if group == "total" else f"{group}_" for group in GROUPS}
    return {g: {name: figures[f"{start}{name}"] for name in FIGURES} for g, start in starts.items()}


def ours(golden: dict[str, float]) -> dict[str, float]:
    return {NAMES[name]: value for name, value in golden.items()}


@pytest.mark.parametrize("name", ["corrupted", "random", "agreement"])
def test_figures_of_all_groups_are_the_golden_ones(case, real, name):
    if name == "agreement":
        bits, found = (case.stored[f"agreement.{n}"].numpy() for n in ("agree_bits", "clip_class"))
        agree = np.unpackbits(bits, axis=1)[:, :10] == 1
        label = found.astype(np.int64)[:, None]
        decisions = {
            "segment": np.where(agree, label, BACKGROUND),
            "unlabelled": agree & (label == BACKGROUND),
        }
        assert decisions["unlabelled"].any()
    else:
        decisions = {"segment": case.stored[name].numpy().astype(np.int64)}
    metrics = scored(real, **decisions)
    assert len(metrics) == case.json["n"] == 5820
    figures, golden = metrics.compute(), case.json["figures"][name]
    for group, found in by_group(figures).items():
        expected = ours(golden[group]["per_video_mean"])
        assert found == pytest.approx(expected, rel=0, abs=1e-5), group
        start = "" if group == "total" else f"{group}_"
        assert figures[f"{start}average"] == pytest.approx(np.mean(list(expected.values())))


def test_anchors_are_the_golden_ones_and_round_to_those_of_the_page(case, real):
    perfect = scored(real, segment=real["segment"].numpy())
    assert set(perfect.compute().values()) == {100.0}
    details = perfect.details()
    assert details["groups"] == {"seen": 1664, "unseen": 4156}
    for name, golden in ANCHORS.items():
        found = by_group(details["anchors"][name])
        for group, column in zip(("seen", "unseen", "total"), ROUNDED[name], strict=True):
            expected = ours(case.json["anchors"][golden][group])
            assert found[group] == pytest.approx(expected, rel=0, abs=1e-5)
            assert [round(found[group][figure], 1) for figure in FIGURES] == list(column)
