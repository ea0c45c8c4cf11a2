"""Windows: every second is covered, and merged by distance from the edges.

One window alone decides as the task would.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avplatform.models.contracts import Output, Parse, Prediction, StreamPredictions
from avplatform.models.errors import UsageError
from avplatform.tasks.spans import runs
from avplatform.timeline.event import events_of
from avplatform.timeline.windows import Features, edge_weights, parse_windows, window_starts
from tests.models.cells import FEATURES, SUPERVISED_CELLS, cell


def features(task, seconds, seed=0):
    spec, generator = FEATURES[task], np.random.default_rng(seed)
    draw = lambda *shape: generator.normal(size=(seconds, *shape)).astype(np.float32)  # noqa: E731
    motion = None if spec.motion_dim is None else draw(spec.motion_dim)
    return Features(
        audio=draw(spec.audio_dim),
        visual=draw(*(spec.map_size or ()), spec.visual_dim),
        motion=motion,
    )


class Counting(nn.Module):
    """Says, as a segment's score, which window it is in and where: 100 * (first second) + place."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, audio, visual, motion=None, label_embeddings=None):
        first = audio[:, :1, :]  # the fake feature of a second is its number
        self.seen += first.flatten().int().tolist()
        place = torch.arange(audio.shape[1]).float()[None, :, None]
        values = (100 * first + place).expand(-1, -1, 2)
        segment = StreamPredictions(audio=Prediction(values), visual=Prediction(values))
        whole = StreamPredictions(
            audio=Prediction(first[:, 0].expand(-1, 2)),
            visual=Prediction(first[:, 0].expand(-1, 2)),
        )
        return Output(Parse(segment=segment, video=whole), None)


def seconds_of(count):
    numbers = np.arange(count, dtype=np.float32)[:, None]
    return Features(audio=numbers, visual=numbers)


@given(seconds=st.integers(1, 200), window=st.integers(1, 20), hop=st.integers(1, 20))
def test_windows_cover_every_second_and_stay_inside(seconds, window, hop):
    hop = min(hop, window)
    starts, length = window_starts(seconds, window=window, hop=hop), min(window, seconds)
    covered = np.zeros(seconds, int)
    for start in starts:
        assert 0 <= start <= seconds - length
        covered[start : start + length] += 1
    assert covered.min() >= 1 and starts == sorted(set(starts))


@given(length=st.integers(1, 30))
def test_weights_fall_to_both_edges_and_are_never_zero(length):
    weights = edge_weights(length)
    assert (weights == weights[::-1]).all() and weights.min() == 1
    assert (np.diff(weights[: (length + 1) // 2]) > 0).all()


def test_overlapping_scores_are_means_weighted_by_the_distance_from_the_edge():
    parse = parse_windows(Counting(), seconds_of(15), window=10, hop=5)
    # Second 7 is place 7 of the window at 0 (weight 3) and place 2 of the window at 5 (weight 3).
    assert parse.segment.audio.values[7, 0, 0] == pytest.approx((3 * 7 + 3 * 502) / 6)
    # Second 9 is the last of the first window (weight 1), near the middle of the second (weight 5).
    assert parse.segment.audio.values[9, 0, 0] == pytest.approx((1 * 9 + 5 * 504) / 6)
    assert parse.segment.audio.values[2, 0, 0] == 2  # only the first window holds it
    assert parse.video.audio.values[9, 0] == pytest.approx((1 * 0 + 5 * 5) / 6)


def test_the_last_window_ends_with_the_video_and_a_short_one_is_whole():
    model = Counting()
    parse_windows(model, seconds_of(23), window=10, hop=5)
    assert model.seen == [0, 5, 10, 13]
    model = Counting()
    assert parse_windows(model, seconds_of(3), window=10, hop=5).segment.audio.values.shape == (
        3,
        1,
        2,
    )
    assert model.seen == [0]


def test_batches_of_windows_change_nothing():
    one = parse_windows(Counting(), seconds_of(57), window=10, hop=3, batch_size=1)
    many = parse_windows(Counting(), seconds_of(57), window=10, hop=3, batch_size=50)
    assert torch.equal(one.segment.visual.values, many.segment.visual.values)


def test_a_hop_beyond_the_window_is_refused():
    with pytest.raises(UsageError, match="leave no gap"):
        parse_windows(Counting(), seconds_of(30), window=5, hop=6)


@pytest.mark.parametrize("name", SUPERVISED_CELLS, ids="-".join)
def test_one_window_is_decided_as_the_task_decides_the_clip(name):
    made = cell(*name)
    model = made.model.eval()
    # MGN's own decoder reads segments as groups of ten, so the length is fixed.
    for seconds in (10,) if "group" in name and "mgn" in name else (10, 7, 1):
        given_ = features(name[0], seconds, seed=seconds)
        tensors = [
            None if x is None else torch.from_numpy(x)[None]
            for x in (given_.audio, given_.visual, given_.motion)
        ]
        with torch.inference_mode():
            parse = model(*tensors).parse
            parse = parse.for_decisions
        merged = parse_windows(model, given_)
        wanted, found = (made.task.events(made.task.decide(p)) for p in (parse, merged))
        assert {k: v.shape[2] for k, v in wanted.items()} == {
            k: v.shape[2] for k, v in found.items()
        }
        for stream in wanted:
            assert torch.equal(wanted[stream][0], found[stream][:, 0]), (stream, seconds)
        probabilities = made.task.probabilities(merged)
        for stream, values in probabilities.items():
            assert values.shape == found[stream].shape and ((values >= 0) & (values <= 1)).all()
            direct = made.task.probabilities(parse)[stream][0]
            torch.testing.assert_close(values[:, 0], direct.float(), rtol=1e-4, atol=1e-5)


def test_attention_adds_up_to_one_over_the_whole_video():
    made = cell("avvp", "han", "leap")
    parse = parse_windows(made.model.eval(), features("avvp", 33))
    assert parse.attention.shape == (1, 2, 25, 33)
    torch.testing.assert_close(parse.attention.sum(dim=-1), torch.ones(1, 2, 25))


def test_runs_become_events_and_the_last_one_ends_with_the_video():
    found = {"audio": np.array([[1, 0], [1, 1], [0, 1]], bool)}
    scores = {"audio": np.array([[0.8, 0.1], [0.6, 0.9], [0.2, 0.7]])}
    events = events_of(found, scores, ["dog", "cat"], duration=2.6)
    assert [(e.label, e.onset, e.offset) for e in events] == [("dog", 0.0, 2.0), ("cat", 1.0, 2.6)]
    assert [e.score for e in events] == pytest.approx([0.7, 0.8])
    assert runs(np.zeros(4)) == []
