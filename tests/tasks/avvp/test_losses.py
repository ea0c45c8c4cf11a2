"""Losses of video parsing: clamping, precision, label rules, similarity targets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Encoding, Parse, Prediction, StreamPredictions
from avplatform.tasks.avvp import AVVPConfig
from avplatform.tasks.avvp.losses import labels_without_pseudo, predicted_events
from avplatform.tasks.avvp.targets import smooth
from avplatform.tasks.batch import Batch
from avplatform.tasks.losses import clamped_bce, event_iou, released_target, similarity_loss


def sets_of(*members):
    """Event sets of segments as a map [1, T, 4]."""
    maps = torch.zeros(1, len(members), 4)
    for segment, classes in enumerate(members):
        maps[0, segment, list(classes)] = 1
    return maps


def parse_in(dtype):
    rng = torch.Generator().manual_seed(0)

    def probabilities(*shape):
        return Prediction(
            torch.rand(*shape, generator=rng, dtype=torch.float64).to(dtype), "probability"
        )

    return Parse(
        segment=StreamPredictions(audio=probabilities(2, 10, 25), visual=probabilities(2, 10, 25)),
        video=StreamPredictions(
            audio=probabilities(2, 25), visual=probabilities(2, 25), av=probabilities(2, 25)
        ),
    )


def batch_of(labels):
    nothing = torch.zeros(2, 10, 1)
    return Batch(
        audio=nothing,
        visual=nothing,
        motion=None,
        row=torch.arange(2),
        clip_id=["a", "b"],
        labels=labels,
    )


def test_the_clamp_bounds_the_loss_and_stops_the_gradient():
    p = torch.tensor([0.0, 1.0, 1.2, 0.5], dtype=torch.float64, requires_grad=True)
    loss = clamped_bce(p, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx((3 * 16.11809565 + 0.69314718) / 4)
    loss.backward()
    assert p.grad[:3].tolist() == [0, 0, 0] and p.grad[3].item() == pytest.approx(-2 / 4)


def test_smoothing_pulls_to_one_half():
    assert smooth(torch.tensor([1.0, 0.0]), 0.9).tolist() == pytest.approx([0.95, 0.05])
    assert smooth(torch.tensor([1.0, 0.0]), 1.0).tolist() == [1, 0]


@pytest.mark.parametrize("label_type", [torch.uint8, torch.float32])
def test_label_types_do_not_cost_a_double_model_its_precision(label_type):
    weak = torch.zeros(2, 25, dtype=label_type)
    weak[:, :2] = 1
    task, parse = make_task("avvp", AVVPConfig(supervision="weak")), parse_in(torch.float64)
    encoding = Encoding(audio=torch.zeros(2, 10, 8), visual=torch.zeros(2, 10, 8))
    found = task.loss(parse, encoding, batch_of({"weak": weak}))["visual"]
    p, target = parse.video.visual.values, 0.9 * weak.double() + 0.05
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert found.dtype == torch.float64 and found.item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_half_precision_predictions_are_scored_in_single():
    weak = torch.ones(2, 25, dtype=torch.uint8)
    encoding = Encoding(audio=torch.zeros(2, 10, 8), visual=torch.zeros(2, 10, 8))
    terms = make_task("avvp", AVVPConfig(supervision="weak")).loss(
        parse_in(torch.bfloat16), encoding, batch_of({"weak": weak})
    )
    assert {value.dtype for value in terms.values()} == {torch.float32}


def test_without_pseudo_labels_only_visual_segments_are_smoothed():
    labels = labels_without_pseudo(torch.tensor([[1.0, 0.0]]), 3)
    assert labels["segment_audio"].tolist() == [[[1.0, 0.0]] * 3]
    assert labels["segment_visual"].flatten().tolist() == pytest.approx([0.95, 0.05] * 3)
    assert labels["video_audio"].tolist() == [[1.0, 0.0]]
    assert labels["video_visual"].flatten().tolist() == pytest.approx([0.95, 0.05])


def test_predicted_events_are_gated_by_their_own_modality_without_gradient():
    parse = parse_in(torch.float32)
    for stream in ("audio", "visual"):
        getattr(parse.segment, stream).values = torch.full((2, 10, 25), 0.9, requires_grad=True)
    parse.video.audio.values, parse.video.visual.values = (
        torch.full((2, 25), 0.5),
        torch.full((2, 25), 0.4),
    )
    audio, visual = predicted_events(parse)
    assert audio.all() and not visual.any() and not audio.requires_grad


def test_the_example_of_the_leap_paper():
    iou, valid = event_iou(sets_of({0, 1, 2}), sets_of({0}))
    assert iou.item() == pytest.approx(1 / 3) and valid.all()
    assert event_iou(sets_of({0, 1, 2}), sets_of({0, 1}))[0].item() == pytest.approx(2 / 3)


def test_the_released_target_divides_by_the_largest_set_of_the_clip():
    assert released_target(sets_of({0}), sets_of({0})).item() == pytest.approx(0.51)
    crowded = released_target(sets_of({0}, {0, 1, 2}), sets_of({0}, ()))
    torch.testing.assert_close(
        crowded, torch.tensor([[[0.26, 0.01], [0.26, 0.01]]], dtype=torch.float64)
    )
    assert released_target(sets_of(()), sets_of(())).item() == pytest.approx(0.01)


@pytest.mark.parametrize(("empty_pair", "expected"), [("zero", 1.0), ("one", 0.0), ("ignore", 0.0)])
def test_pairs_without_events_are_treated_as_configured(empty_pair, expected):
    feature = torch.ones(1, 1, 8)
    loss = similarity_loss(
        feature, feature, sets_of(()), sets_of(()), form="paper", empty_pair=empty_pair
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_event_iou_counts_sets(seed):
    rng = torch.Generator().manual_seed(seed)
    audio, visual = ((torch.rand(2, 4, 5, generator=rng) < 0.4).float() for _ in range(2))
    iou, valid = event_iou(audio, visual)
    for clip in range(2):
        for i in range(4):
            for j in range(4):
                a, v = (
                    set(audio[clip, i].nonzero().flatten().tolist()),
                    set(visual[clip, j].nonzero().flatten().tolist()),
                )
                assert valid[clip, i, j].item() == bool(a | v)
                assert iou[clip, i, j].item() == pytest.approx(len(a & v) / max(len(a | v), 1))


def test_only_the_released_form_leaves_opposite_segments_alone():
    audio = torch.tensor([[[1.0, 0.2]]])
    for form, moves in (("official", False), ("paper", True)):
        visual = torch.tensor([[[-1.0, 0.1]]], requires_grad=True)
        similarity_loss(audio, visual, sets_of({0}), sets_of({0}), form=form).backward()
        assert bool(visual.grad.abs().sum() > 0) == moves
