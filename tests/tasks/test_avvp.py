"""Video parsing: annotations, metrics against a plain loop, losses, decisions."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Encoding, Parse, Prediction, StreamPredictions
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.avvp import AVVPConfig
from avplatform.tasks.avvp.losses import (
    basic_loss,
    han_loss,
    labels_without_pseudo,
    video_probabilities,
)
from avplatform.tasks.avvp.metrics import AVVPMetrics, averages, overlap_subsets, score
from avplatform.tasks.batch import Batch

real = pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)


def write_llp(folder, *, train="aaaaaaaaaaa_0_10\tDog", audio=(), visual=()):
    head = "filename\tevent_labels\n"
    (folder / "AVVP_train.csv").write_text(head + train + "\n")
    (folder / "AVVP_val_pd.csv").write_text(head + "b_b-bbbbbbb_30_40\tSpeech,Dog\n")
    (folder / "AVVP_test_pd.csv").write_text(head + "ccccccccccc_101.8_111.8\tClapping,Clapping\n")
    dense = "filename\tonset\toffset\tevent_labels\n"
    (folder / "AVVP_eval_audio.csv").write_text(
        dense + "".join(f"{r}\n" for r in audio or ["b_b-bbbbbbb_30_40\t2\t5\tDog"])
    )
    (folder / "AVVP_eval_visual.csv").write_text(
        dense + "".join(f"{r}\n" for r in visual or ["b_b-bbbbbbb_30_40\t0\t10\tDog"])
    )
    return folder


def test_intervals_are_half_open_and_rows_follow_the_split_files(tmp_path):
    data = read_annotations(write_llp(tmp_path))
    assert data.filenames[1] == "b_b-bbbbbbb_30_40" and data.video_ids[1] == "b_b-bbbbbbb"
    assert data.dense_audio[1, :, CLASSES.index("Dog")].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert data.seconds[2].tolist() == [101.8, 111.8]
    assert {k: v.tolist() for k, v in data.splits.items()} == {
        "train": [0],
        "validation": [1],
        "test": [2],
    }
    assert data.weak[2].sum() == 1


def test_odd_rows_are_listed_and_never_an_error(tmp_path):
    clip = "b_b-bbbbbbb_30_40"
    rows = [
        f"{clip}\t3\t3\tDog",
        f"{clip}\t9\t0\tDog",
        f"{clip}\t1\t2\tDog",
        f"{clip}\t1\t2\tDog",
        "stranger\t0\t400\tDog",
    ]
    data = read_annotations(write_llp(tmp_path, audio=rows))
    kinds = sorted(d.kind for d in data.defects)
    assert kinds == [
        "class named twice",
        "clip outside all splits",
        "event of no length",
        "reversed event",
        "row given twice",
    ]
    assert data.dense_audio.sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": "aaaaaaaaaaa_0_10\tDgo"},
            "line 2: 'Dgo' is not an LLP class; did you mean 'Dog'",
        ),
        ({"train": "aaaaaaaaaaa_0_10"}, "line 2: 1 column instead of 2"),
        ({"train": "short\tDog"}, "'short' is not an 11-character video id"),
        ({"train": "b_b-bbbbbbb_30_40\tDog"}, "twice"),
        (
            {"audio": ["b_b-bbbbbbb_30_40\tx\t5\tDog"]},
            "line 2: onset and offset must be whole seconds",
        ),
        ({"audio": ["b_b-bbbbbbb_30_40\t2.5\t5\tDog"]}, "whole seconds, not '2.5', '5'"),
        ({"audio": ["b_b-bbbbbbb_30_40\t2,0\t5\tDog"]}, "whole seconds, not '2,0', '5'"),
        ({"audio": ["b_b-bbbbbbb_30_40\t-1\t5\tDog"]}, "outside 0 to 10"),
        ({"train": 'aaaaaaaaaaa_0_10\t"Dog'}, "line 2: unexpected end of data"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        read_annotations(write_llp(tmp_path, **options))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no AVVP_train.csv"):
        read_annotations(tmp_path)
    (write_llp(tmp_path) / "AVVP_eval_visual.csv").unlink()
    with pytest.raises(DataError, match="AVVP_eval_visual.csv"):
        read_annotations(tmp_path)


@real
def test_counts_of_the_real_annotations():
    data = read_annotations(os.environ["AVP_LLP_DIR"])
    assert {k: len(v) for k, v in data.splits.items()} == {
        "train": 10000,
        "validation": 649,
        "test": 1200,
    }
    for split, positive, weak in (
        ("validation", (8089, 6115, 5078), 1.803),
        ("test", (14576, 11789, 9592), 1.815),
    ):
        rows = data.splits[split]
        a, v = data.dense_audio[rows].astype(bool), data.dense_visual[rows].astype(bool)
        assert (a.sum(), v.sum(), (a & v).sum()) == positive
        assert data.weak[rows].sum(axis=1).mean() == pytest.approx(weak, abs=5e-4)
    test = data.splits["test"]
    expected = {"union": 764, "either_modality": 665, "audio": 626, "visual": 267}
    found = overlap_subsets(data.dense_audio[test], data.dense_visual[test])
    assert {k: int(v.sum()) for k, v in found.items()} == expected
    outside = [d.file for d in data.defects if d.kind == "clip outside all splits"]
    assert (outside.count("AVVP_eval_audio.csv"), outside.count("AVVP_eval_visual.csv")) == (14, 11)
    none = [d for d in data.defects if d.kind in ("event of no length", "reversed event")]
    assert len(none) == 6
    speech = data.weak[data.splits["train"]][:, 0].sum()
    assert speech == 4988


@real
def test_anchors_of_the_real_test_split():
    data = read_annotations(os.environ["AVP_LLP_DIR"])
    rows = data.splits["test"]
    weak = np.broadcast_to(data.weak[rows][:, None], data.dense_audio[rows].shape)
    found = averages(score(weak, weak, data.dense_audio[rows], data.dense_visual[rows]))
    names = [
        f"{level}_{kind}"
        for level in ("segment", "event")
        for kind in ("A", "V", "AV", "Type@AV", "Event@AV")
    ]
    assert [round(found[n], 1) for n in names] == [
        76.1,
        60.3,
        52.6,
        63.0,
        71.7,
        63.0,
        55.8,
        44.7,
        54.5,
        61.6,
    ]


def plain_f(predicted, true):
    """One clip's F by loops: [C, T] twice -> (segment, event) counts a class."""
    out = []
    for p, t in zip(predicted, true, strict=True):
        tp = int((p & t).sum())
        seg = (tp, int((p & ~t).sum()), int((~p & t).sum()))
        runs = [[], []]
        for found, row in zip(runs, (p, t), strict=True):
            start = None
            for i, on in enumerate([*row, False]):
                if on and start is None:
                    start = i
                if not on and start is not None:
                    found.append(set(range(start, i)))
                    start = None
        hits = sum(any(2 * len(a & b) >= len(a | b) for b in runs[1]) for a in runs[0])
        missed = sum(not any(2 * len(a & b) >= len(a | b) for a in runs[0]) for b in runs[1])
        out.append((seg, (hits, len(runs[0]) - hits, missed)))
    return out


def plain_scores(pa, pv, ta, tv):
    def mean(counts):
        active = [2 * c[0] / (2 * c[0] + c[1] + c[2]) for c in counts if sum(c)]
        return sum(active) / len(active) if active else 1.0

    a, v, av = plain_f(pa, ta), plain_f(pv, tv), plain_f(pa & pv, ta & tv)
    row = []
    for level in (0, 1):
        pooled = [
            tuple(x + y for x, y in zip(i[level], j[level], strict=True))
            for i, j in zip(a, v, strict=True)
        ]
        row += [
            mean([c[level] for c in a]),
            mean([c[level] for c in v]),
            mean(pooled),
            mean([c[level] for c in av]),
        ]
    return row


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4), st.floats(0.1, 0.9))
def test_scores_equal_a_plain_loop(seed, segments, classes, density):
    rng = np.random.default_rng(seed)
    maps = [rng.random((3, segments, classes)) < density for _ in range(4)]
    table = score(*maps)
    for n in range(3):
        expected = plain_scores(*(m[n].T for m in maps))
        np.testing.assert_allclose(table[n], expected, rtol=0, atol=1e-12)


def make_batch(rows, seed=0, segments=10):
    rng = torch.Generator().manual_seed(seed)
    maps = {
        k: (torch.rand(len(rows), segments, 25, generator=rng) < 0.1).float()
        for k in ("dense_audio", "dense_visual")
    }
    labels = {**maps, "weak": (torch.rand(len(rows), 25, generator=rng) < 0.1).float()}
    empty = torch.zeros(len(rows), segments, 1)
    return Batch(
        audio=empty,
        visual=empty,
        motion=None,
        row=torch.tensor(rows),
        clip_id=[str(r) for r in rows],
        labels=labels,
    )


def decisions_of(batch, seed=1):
    rng = torch.Generator().manual_seed(seed)
    maps = {k: torch.rand(len(batch), 10, 25, generator=rng) < 0.1 for k in ("audio", "visual")}
    return {**maps, "video": torch.rand(len(batch), 25, generator=rng) < 0.1}


def part(batch, decisions, index):
    clip = slice(index, index + 1)
    return {k: v[clip] for k, v in decisions.items()}, batch.select(clip)


def test_metrics_do_not_depend_on_batches_order_or_processes():
    batch = make_batch(list(range(12)))
    decisions = decisions_of(batch)
    whole = AVVPMetrics(CLASSES)
    whole.update(decisions, batch)
    halves = [AVVPMetrics(CLASSES), AVVPMetrics(CLASSES)]
    for i in np.random.default_rng(0).permutation(12):
        halves[i % 2].update(*part(batch, decisions, int(i)))
    merged = AVVPMetrics(CLASSES)
    merged.merge([h.state() for h in halves])
    assert (
        merged.compute() == whole.compute()
        and merged.details() == whole.details()
        and len(merged) == 12
    )


def test_a_clip_that_counts_twice_is_refused():
    batch = make_batch([3, 4])
    metrics = AVVPMetrics(CLASSES)
    metrics.update(decisions_of(batch), batch)
    with pytest.raises(DataError, match="row 3 was scored twice"):
        metrics.merge([metrics.state(), metrics.state()])


def parse_of(kind="leap", clips=2, segments=10, seed=0):
    rng = torch.Generator().manual_seed(seed)
    segment = [Prediction(torch.randn(clips, segments, 25, generator=rng)) for _ in range(2)]
    values = [torch.randn(clips, 25, generator=rng) for _ in range(3)]
    if kind == "leap":
        video = StreamPredictions(audio=Prediction(values[0]), visual=Prediction(values[1]))
    else:
        p = [
            Prediction(v.sigmoid() * (1.2 if i == 2 else 1), "probability")
            for i, v in enumerate(values)
        ]
        video = StreamPredictions(audio=p[0], visual=p[1], av=p[2])
    return Parse(segment=StreamPredictions(audio=segment[0], visual=segment[1]), video=video)


def encoding_of(clips=2, segments=10):
    return Encoding(audio=torch.randn(clips, segments, 8), visual=torch.randn(clips, segments, 8))


def labelled(clips=2):
    batch = make_batch(list(range(clips)))
    batch.labels["pseudo_audio"], batch.labels["pseudo_visual"] = (
        batch.labels["dense_audio"],
        batch.labels["dense_visual"],
    )
    return batch


def test_leaps_global_prediction_is_a_hard_or_without_gradient():
    parse = parse_of()
    parse.video.audio.values.requires_grad_()
    audio, visual, both = video_probabilities(parse)
    assert torch.equal(both, ((audio >= 0.5) | (visual >= 0.5)).float()) and not both.requires_grad


@pytest.mark.parametrize("kind", ["leap", "mmil"])
@pytest.mark.parametrize("supervision", ["pseudo", "weak"])
@pytest.mark.parametrize("avss", ["off", "official", "paper"])
def test_every_objective_is_finite_and_sums_up(kind, supervision, avss):
    task = make_task("avvp", AVVPConfig(supervision=supervision, avss=avss))
    terms = task.loss(parse_of(kind), encoding_of(), labelled())
    assert all(v.isfinite() and v.ndim == 0 for v in terms.values())
    assert ("similarity" in terms) == (avss != "off")
    expected = {"audio", "visual", "global"}
    if supervision == "pseudo" or kind == "leap":
        expected |= {"segment_audio", "segment_visual"}
    assert set(terms) - {"similarity"} == expected


def test_pseudo_supervision_without_pseudo_labels_says_what_to_do():
    with pytest.raises(DataError, match="--supervision weak"):
        make_task("avvp", AVVPConfig()).loss(parse_of(), encoding_of(), make_batch([0, 1]))


def test_the_direct_heads_global_prediction_is_soft_in_losses_and_an_or_in_decisions():
    parse = parse_of("mmil")
    parse.video.av = None
    parse.video.audio = Prediction(torch.full((2, 25), 0.4), "probability")
    parse.video.visual = Prediction(torch.full((2, 25), 0.4), "probability")
    torch.testing.assert_close(video_probabilities(parse)[2], torch.full((2, 25), 0.64))
    assert not make_task("avvp", AVVPConfig()).decide(parse)["video"].any()
    assert set(
        make_task("avvp", AVVPConfig(supervision="weak")).loss(parse, encoding_of(), labelled())
    ) == {
        "audio",
        "visual",
        "global",
    }


def test_the_global_term_counts_as_configured():
    weak = labelled().labels["weak"]
    labels = labels_without_pseudo(weak, 10)
    once, twice = (
        basic_loss(parse_of(), weak=weak, global_term=g, **labels)["global"]
        for g in ("once", "twice")
    )
    assert twice == pytest.approx(2 * once.item())
    assert "global" not in basic_loss(parse_of(), weak=weak, global_term="drop", **labels)


def test_a_probability_above_one_gives_no_gradient():
    parse = parse_of("mmil")
    parse.video.av.values = torch.full((2, 25), 1.1, requires_grad=True)
    han_loss(parse, torch.zeros(2, 25))["global"].backward()
    assert parse.video.av.values.grad.abs().sum() == 0


def test_gates_switch_segments_off():
    parse = parse_of()
    off = torch.full((2, 25), -9.0)
    parse.video.visual = Prediction(off)
    parse.video.audio = Prediction(torch.where(torch.arange(25) == 3, 9.0, -9.0).expand(2, 25))
    parse.segment.audio, parse.segment.visual = (
        Prediction(torch.full((2, 10, 25), 9.0)) for _ in range(2)
    )
    counts = {}
    for gate in ("global", "modality", "none"):
        found = make_task("avvp", AVVPConfig(gate=gate)).decide(parse)
        counts[gate] = (int(found["audio"].sum()), int(found["visual"].sum()))
    assert counts == {"global": (20, 20), "modality": (20, 0), "none": (500, 500)}


def test_the_threshold_is_inclusive():
    parse = parse_of("mmil")
    parse.video.av = Prediction(torch.full((2, 25), 0.5), "probability")
    parse.segment.audio = Prediction(torch.zeros(2, 10, 25))
    assert make_task("avvp", AVVPConfig()).decide(parse)["audio"].all()


def test_weak_labels_of_leap_by_hand():
    weak = torch.zeros(1, 25)
    weak[0, 4] = 1
    labels = labels_without_pseudo(weak, 3)
    assert (
        labels["segment_audio"][0, :, 4].tolist() == [1, 1, 1]
        and labels["segment_audio"].sum() == 3
    )
    assert labels["segment_visual"][0, 0, [4, 5]].tolist() == pytest.approx([0.95, 0.05])
    assert labels["video_visual"][0, [4, 5]].tolist() == pytest.approx([0.95, 0.05])


@pytest.mark.parametrize(("supervision", "objective"), [("weak", "valor"), ("pseudo", "han")])
def test_an_objective_that_contradicts_the_supervision_is_refused(supervision, objective):
    with pytest.raises(UsageError, match="does not go with"):
        AVVPConfig(supervision=supervision, objective=objective)


def test_unknown_options_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'official'"):
        AVVPConfig(avss="oficial")
    with pytest.raises(UsageError, match="visual_smooth"):
        AVVPConfig(visual_smooth=1.5)
