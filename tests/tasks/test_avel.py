"""Event localization: annotations, accuracy, losses, decisions."""

import os
import re

import h5py
import numpy as np
import pytest
import torch

from avplatform.data.adapters.ave.annotations import read_annotations
from avplatform.data.adapters.ave.classes import BACKGROUND, CLASSES, EVENTS
from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Encoding, Parse, Prediction, StreamPredictions
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.avel import AVELConfig
from avplatform.tasks.avel.heads import weak_decision
from avplatform.tasks.avel.losses import (
    pair_target,
    pool_segments,
    pooled_bce,
    proportion_target,
    soft_margin,
)
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.batch import Batch

real = pytest.mark.skipif(
    "AVP_AVE_DIR" not in os.environ,
    reason="AVP_AVE_DIR is not set: the real annotations are not here",
)
LINES = [
    "Church bell&aaaaaaaaaaa&good&0&10",
    "Bark&bbbbbbbbbbb&good&2&5",
    "Bark&aaaaaaaaaaa&good&0&0",
]


def write_ave(folder, lines=LINES, orders=None):
    (folder / "Annotations.txt").write_text("\n".join(lines) + "\n")
    for name, rows in (orders or {"train": [0], "val": [1], "test": [2]}).items():
        with h5py.File(folder / f"{name}_order.h5", "w") as file:
            file["order"] = np.array(rows)
    return folder


def test_segments_follow_the_interval(tmp_path):
    data = read_annotations(write_ave(tmp_path))
    assert data.segment[1].tolist() == [28, 28, 2, 2, 2, 28, 28, 28, 28, 28]
    assert data.segment[2].tolist() == [28] * 10 and data.class_index[2] == EVENTS.index("Bark")
    kinds = sorted(d.kind for d in data.defects)
    assert kinds == [
        "event of no length",
        "video id in several splits",
        "video id of several clips",
    ]


def test_annotations_that_pandas_wrote_back_read_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = read_annotations(write_ave(tmp_path / "a", LINES))
    floats = [re.sub(r"&(\d+)&(\d+)$", r"&\1.0&\2.0", line) for line in LINES]
    edited = [f'"{floats[0].partition("&")[0]}"&{floats[0].partition("&")[2]}', "", *floats[1:]]
    data = read_annotations(write_ave(tmp_path / "b", edited))
    assert data.clip_ids == plain.clip_ids and floats[0] != LINES[0]
    np.testing.assert_array_equal(data.segment, plain.segment)


def test_a_header_line_is_skipped(tmp_path):
    data = read_annotations(
        write_ave(tmp_path, ["Category&VideoID&Quality&StartTime&EndTime", *LINES])
    )
    assert len(data.clip_ids) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Brak&aaaaaaaaaaa&good&0&1"], "line 1: 'Brak' is not an AVE class; did you mean 'Bark'"),
        (["Bark&aaaaaaaaaaa&good&0"], "line 1: 4 columns"),
        ([LINES[0], "Bark&aaaaaaaaaaa&good&x&1"], "line 2: onset and offset"),
        (["Bark&aaaaaaaaaaa&good&0&11"], "event 0 to 11 s lies outside 0 to 10 s"),
        ([], "holds no clip|is not an AVE|column "),
    ],
)
def test_malformed_annotations_are_named_with_their_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_annotations(write_ave(tmp_path, lines))


def test_orders_must_be_there_and_apart(tmp_path):
    write_ave(tmp_path, orders={"train": [0, 1], "val": [1], "test": [2]})
    with pytest.raises(DataError, match=r"share rows \(row 1\)"):
        read_annotations(tmp_path)
    for odd in (1.5, np.nan):
        write_ave(tmp_path, orders={"train": [0], "val": [odd], "test": [2]})
        with pytest.raises(DataError, match=f"val_order.h5 holds {odd}, which is not a row number"):
            read_annotations(tmp_path)
    write_ave(tmp_path, orders={"train": [0.0], "val": [1.0], "test": [2.0]})
    assert read_annotations(tmp_path).splits["test"].tolist() == [2]
    (tmp_path / "val_order.h5").unlink()
    with pytest.raises(DataError, match="val_order.h5 is missing"):
        read_annotations(tmp_path)
    (tmp_path / "val_order.h5").write_bytes(b"not h5")
    with pytest.raises(DataError, match="val_order.h5"):
        read_annotations(tmp_path)


def test_derived_labels_that_disagree_are_listed_with_their_rows(tmp_path):
    write_ave(tmp_path)
    with h5py.File(tmp_path / "mil_labels.h5", "w") as file:
        file["avadataset"] = np.eye(29)[[0, 3, 2]]
    odd = [d for d in read_annotations(tmp_path).defects if d.file == "mil_labels.h5"]
    assert [(d.kind, d.line) for d in odd] == [("label file disagrees with Annotations.txt", 1)]


@real
def test_counts_of_the_real_annotations():
    data = read_annotations(os.environ["AVP_AVE_DIR"])
    assert {k: len(v) for k, v in data.splits.items()} == {
        "train": 3339,
        "validation": 402,
        "test": 402,
    }
    share = {k: (data.segment[v] == BACKGROUND).mean() for k, v in data.splits.items()}
    assert share == pytest.approx({"train": 0.169, "validation": 0.182, "test": 0.178}, abs=5e-4)
    assert ((data.onset == 0) & (data.offset == 10)).sum() == 2750
    assert data.background_count == 178
    assert sum(d.kind == "video id of several clips" for d in data.defects) == 45
    assert np.bincount(data.class_index)[:5].tolist() == [188, 176, 171, 184, 188]
    assert [d.line for d in data.defects if d.kind == "event of no length"] == [27]


# Clips a class: of all, of train, and of validation, which has as many as test.
REAL_CLASSES = {
    "all": [188, 176, 171, 184, 188, 175, 178, 187, 172, 163, 182, 138, 102, 99, 186, 176, 160, 183,
            100, 83, 69, 160, 60, 64, 180, 109, 154, 156],
    "train": [152, 142, 137, 148, 152, 141, 144, 151, 138, 131, 146, 112, 82, 81, 150, 142, 128,
              147, 80, 67, 57, 128, 48, 52, 144, 89, 124, 126],
    "validation": [18, 17, 17, 18, 18, 17, 17, 18, 17, 16, 18, 13, 10, 9, 18, 17, 16, 18, 10, 8, 6,
                   16, 6, 6, 18, 10, 15, 15],
}  # fmt: skip


@real
def test_classes_and_orders_of_the_real_annotations():
    data = read_annotations(os.environ["AVP_AVE_DIR"])
    assert (
        len(data.clip_ids) == 4143 and np.bincount(data.class_index).tolist() == REAL_CLASSES["all"]
    )
    first = sorted(set(data.class_index.tolist()), key=data.class_index.tolist().index)
    assert first == list(range(28)) and (np.diff(data.class_index) >= 0).all()
    for split in ("train", "validation", "test"):
        counts = np.bincount(data.class_index[data.splits[split]]).tolist()
        assert counts == REAL_CLASSES["validation" if split == "test" else split]
        assert (
            np.diff(data.class_index[data.splits[split]]) >= 0
        ).all()  # sorted by class, shuffled inside
        assert (np.diff(data.splits[split]) < 0).any()
    assert sorted(np.concatenate(list(data.splits.values()))) == list(range(4143))


@real
def test_row_26_and_repeated_ids_of_the_real_annotations():
    data = read_annotations(os.environ["AVP_AVE_DIR"])
    odd = np.flatnonzero((data.segment == BACKGROUND).all(axis=1))
    assert odd.tolist() == [26] and data.class_index[26] == 0 and 26 in data.splits["train"]
    ids = {}
    for row, clip_id in enumerate(data.clip_ids):
        ids.setdefault(clip_id, []).append(row)
    repeated = [rows for rows in ids.values() if len(rows) > 1]
    assert sorted(map(len, repeated)) == [2] * 44 + [3]
    assert all(len(set(data.class_index[rows])) == len(rows) for rows in repeated)
    assert len([d for d in data.defects if d.kind == "video id in several splits"]) == 18


@real
def test_anchors_of_the_real_test_split():
    data = read_annotations(os.environ["AVP_AVE_DIR"])
    rows = data.splits["test"]
    metrics = AVELMetrics(CLASSES)
    metrics.update(
        {"segment": torch.from_numpy(data.segment[rows])},
        batch_of(data.segment[rows], data.class_index[rows]),
    )
    anchors = metrics.details()["anchors"]
    assert metrics.compute() == {"accuracy": 100.0}
    known = {"always_background": 17.8, "perfect_class_everywhere": 82.2}
    assert {name: anchors[name] for name in known} == pytest.approx(known, abs=0.05)


def batch_of(segment, video):
    n = len(video)
    empty = torch.zeros(n, 10, 1)
    labels = {
        "segment": torch.as_tensor(np.asarray(segment)),
        "video": torch.as_tensor(np.asarray(video)),
    }
    return Batch(
        audio=empty, visual=empty, motion=None, row=torch.arange(n), clip_id=[""] * n, labels=labels
    )


def test_metrics_do_not_depend_on_batches_or_processes():
    rng = np.random.default_rng(0)
    segment, video, found = (
        rng.integers(0, 29, (9, 10)),
        rng.integers(0, 28, 9),
        torch.from_numpy(rng.integers(0, 29, (9, 10))),
    )
    batch = batch_of(segment, video)
    whole, parts = AVELMetrics(CLASSES), [AVELMetrics(CLASSES), AVELMetrics(CLASSES)]
    whole.update({"segment": found}, batch)
    for i in rng.permutation(9):
        parts[i % 2].update({"segment": found[i : i + 1]}, batch.select(slice(i, i + 1)))
    merged = AVELMetrics(CLASSES)
    merged.merge([p.state() for p in parts])
    assert merged.compute() == whole.compute() and merged.details() == whole.details()
    with pytest.raises(DataError, match="twice"):
        merged.merge([whole.state(), whole.state()])


def test_details_tell_events_and_background_apart():
    segment = np.full((1, 10), BACKGROUND)
    segment[0, :4] = 5
    metrics = AVELMetrics(CLASSES)
    metrics.update({"segment": torch.full((1, 10), 5)}, batch_of(segment, [5]))
    details = metrics.details()
    assert (
        details["event_accuracy"],
        details["background_accuracy"],
        details["video_accuracy"],
    ) == (100.0, 0.0, 100.0)
    assert details["per_class"][CLASSES[5]] == {"accuracy": 100.0, "count": 4}


def parse_of(kind, clips=3, classes=29, seed=0):
    rng = torch.Generator().manual_seed(seed)
    segment, video = (
        torch.randn(clips, 10, classes, generator=rng),
        torch.randn(clips, classes, generator=rng),
    )
    if kind == "head":
        p = [Prediction(x, activation="softmax") for x in (segment, segment.amax(dim=1))]
    elif kind == "probability":
        p = [
            Prediction(segment.sigmoid(), "probability"),
            Prediction(video.sigmoid() * 1.3, "probability"),
        ]
    else:
        p = [Prediction(segment), Prediction(video)]
    streams = dict.fromkeys(("audio", "visual"), p[1]) if kind == "leap" else {}
    return Parse(segment=StreamPredictions(av=p[0]), video=StreamPredictions(av=p[1], **streams))


LABELLED = batch_of([[28] * 3 + [4] * 7, [2] * 10, [28] * 10], [4, 2, 28])


@pytest.mark.parametrize("supervision", ["full", "weak"])
@pytest.mark.parametrize(
    ("kind", "classes", "options"),
    [
        ("head", 29, {}),
        ("head", 29, {"head_loss": "soft_margin"}),
        ("head", 29, {"weak_target": "prob"}),
        ("leap", 29, {}),
        ("leap", 29, {"segment_loss": "bce", "video_loss": "per_modality", "weak_pool": "top4"}),
        ("leap", 29, {"video_loss": "off", "weak_pool": "mean"}),
        ("leap", 28, {"label_set": "events"}),
        ("probability", 28, {}),
    ],
)
def test_every_loss_is_finite_and_every_decision_a_label(supervision, kind, classes, options):
    task = make_task("avel", AVELConfig(supervision=supervision, **options))
    parse = parse_of(kind, classes=classes)
    parse.segment.av.values.requires_grad_()
    parse.video.av.values.requires_grad_()
    encoding = Encoding(audio=torch.randn(3, 10, 4), visual=torch.randn(3, 10, 4))
    terms = task.loss(parse, encoding, LABELLED)
    total = sum(terms.values())
    assert total.isfinite() and all(v.ndim == 0 for v in terms.values())
    total.backward()
    decided = task.decide(parse)["segment"]
    assert decided.shape == (3, 10) and decided.min() >= 0 and decided.max() <= 28


def test_soft_margin_squashes_probabilities_again():
    x, y = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.0, 1.0]])
    expected = torch.nn.functional.multilabel_soft_margin_loss(x, y)
    assert soft_margin(x, y).item() == pytest.approx(expected.item())


def test_weak_decisions_let_background_take_segments_and_clips():
    segment = torch.zeros(2, 3, 29)
    segment[:, :, 7] = torch.tensor([1.0, -1.0, 0.0])
    video = torch.zeros(2, 29)
    video[:, 7] = 1.0
    video[1, 28] = 2.0
    assert weak_decision(segment, video).tolist() == [[7, 28, 7], [28, 28, 28]]


def test_masked_decisions_leave_out_absent_classes():
    parse = parse_of("leap", clips=1)
    parse.video.av.values[:] = -9
    assert make_task("avel", AVELConfig(decision="masked")).decide(parse)["segment"].tolist() == [
        [28] * 10
    ]
    parse.video.av.values[0, 3] = 9
    assert make_task("avel", AVELConfig(decision="masked")).decide(parse)["segment"].tolist() == [
        [3] * 10
    ]


def test_mmil_falls_back_to_background_below_one_half():
    parse = parse_of("probability", clips=1, classes=28)
    parse.segment.av.values[:] = 0.1
    parse.segment.av.values[0, 4, 6] = 0.5
    assert make_task("avel", AVELConfig()).decide(parse)["segment"].tolist() == [
        [28] * 4 + [6] + [28] * 5
    ]


def test_targets():
    segment = torch.tensor([[28] * 4 + [3] * 6])
    assert proportion_target(segment, torch.float32, 29)[0, [3, 28]].tolist() == pytest.approx(
        [0.6, 0.4]
    )
    assert pair_target(segment)[0].tolist() == pytest.approx([0.0] * 4 + [1 / 6] * 6)
    assert pair_target(torch.full((1, 10), 28))[0].tolist() == pytest.approx([0.1] * 10)
    values = torch.arange(5.0).reshape(1, 5, 1)
    assert [pool_segments(values, p).item() for p in ("max", "mean", "top4")] == [4.0, 2.0, 2.5]


def test_weak_training_reads_the_background_clips():
    assert make_task("avel", AVELConfig(supervision="weak")).train_splits() == (
        "train",
        "background",
    )
    assert make_task("avel", AVELConfig()).train_splits() == ("train",)


def constant_parse(kind, segment, video, classes=29, clips=1):
    """Predictions with these logits (or probabilities) for class 3 and 0 (or a half) elsewhere."""
    values = [torch.zeros(clips, 2, classes), torch.zeros(clips, classes)]
    for x, v in zip(values, (segment, video), strict=True):
        x[..., 3] = torch.as_tensor(v, dtype=torch.float32)
    if kind == "probability":
        p = [Prediction(x, "probability") for x in values]
    else:
        p = [Prediction(x, activation="softmax" if kind == "head" else "sigmoid") for x in values]
    return Parse(
        segment=StreamPredictions(av=p[0]),
        video=StreamPredictions(av=p[1]),
        queried_by_labels=kind in ("leap", "relevance"),
    )


def bce(logit, target):
    import math

    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


HALF = 0.6931471805599453  # -log(1/2)


def labelled_two(segment=((3, 28),), video=(3,)):
    return batch_of([list(s) for s in segment], list(video))


def loss_of(kind, segment, video, classes=29, labels=None, **options):
    encoding = Encoding(audio=torch.zeros(1, 2, 4), visual=torch.zeros(1, 2, 4))
    return make_task("avel", AVELConfig(**options)).loss(
        constant_parse(kind, segment, video, classes), encoding, labels or labelled_two()
    )


def test_leap_full_losses_by_hand():
    terms = loss_of("leap", [2.0, -1.0], 1.5, segment_loss="bce")
    segment = (bce(2.0, 1) + bce(-1.0, 0) + 56 * HALF) / 58
    assert terms["segment"].item() == pytest.approx(segment, rel=1e-5)
    assert terms["video"].item() == pytest.approx(
        (bce(1.5, 1) + 28 * HALF) / 29, rel=1e-5
    )  # 3 and background occur


@pytest.mark.parametrize("pool", ["max", "mean", "top4"])
def test_the_pooled_loss_is_that_of_the_pooled_probability(pool):
    logits = torch.randn(3, 10, 5, dtype=torch.float64)
    target = (torch.rand(3, 5, dtype=torch.float64) > 0.5).double()
    pooled = pool_segments(logits.sigmoid(), pool)
    expected = torch.nn.functional.binary_cross_entropy(pooled, target)
    torch.testing.assert_close(pooled_bce(Prediction(logits), target, pool=pool), expected)
    torch.testing.assert_close(
        pooled_bce(Prediction(logits.sigmoid(), "probability"), target, pool=pool), expected
    )


@pytest.mark.parametrize("pool", ["max", "mean", "top4"])
@pytest.mark.parametrize("side", [-60.0, 60.0])
def test_the_pooled_loss_pulls_saturated_scores_back(pool, side):
    logits = torch.full((1, 10, 2), side, requires_grad=True)
    pooled_bce(Prediction(logits), torch.tensor([[1.0, 0.0]]), pool=pool).backward()
    wrong = 0 if side < 0 else 1
    assert logits.grad[0, :, wrong].sum().abs() == pytest.approx(0.5, rel=1e-3)


def test_leap_weak_losses_by_hand():
    for pool, pooled in (("max", 2.0), ("mean", None)):
        terms = loss_of("leap", [2.0, -1.0], 1.5, supervision="weak", weak_pool=pool)
        assert terms["video"].item() == pytest.approx((bce(1.5, 1) + 28 * HALF) / 29, rel=1e-5)
        if pooled is not None:
            assert terms["segment"].item() == pytest.approx(
                (bce(pooled, 1) + 28 * HALF) / 29, rel=1e-5
            )


def test_relevance_losses_by_hand():
    import math

    terms = loss_of("relevance", [2.0, -1.0], 1.5, classes=28, label_set="events")
    r = [math.log(math.exp(x) + 27) for x in (2.0, -1.0)]
    assert terms["relevance"].item() == pytest.approx((bce(r[0], 1) + bce(r[1], 0)) / 2, rel=1e-5)
    assert terms["video"].item() == pytest.approx(math.log(math.exp(1.5) + 27) - 1.5, rel=1e-5)
    assert terms["segment"].item() == pytest.approx(
        (bce(2.0, 1) + bce(-1.0, 0) + 54 * HALF) / 56, rel=1e-5
    )


def test_mmil_losses_by_hand():
    import math

    full = loss_of("probability", [0.8, 0.3], 0.6, classes=28)
    zero = -math.log(1 - 1e-7)
    assert full["segment"].item() == pytest.approx(
        (-math.log(0.8) - math.log(0.7) + 54 * zero) / 56, rel=1e-4
    )
    assert full["video"].item() == pytest.approx(-math.log(0.6) / 28, rel=1e-4)
    weak = loss_of("probability", [0.8, 0.3], 0.6, classes=28, supervision="weak")
    assert weak["segment"].item() == pytest.approx(-math.log(0.8) / 28, rel=1e-4)
    assert weak["video"].item() == pytest.approx(-math.log(0.6) / 28, rel=1e-4)


def test_leap_with_another_combination_keeps_its_own_losses_and_decisions():
    parse = constant_parse("leap", [0.4, 0.3], 0.4)
    for level in (parse.segment, parse.video):
        level.av = Prediction(level.av.values, "probability")
    task = make_task("avel", AVELConfig(segment_loss="bce"))
    assert task.decide(parse)["segment"].tolist() == [[3, 3]]
    assert set(
        task.loss(parse, Encoding(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), labelled_two())
    ) == {"segment", "video"}


@pytest.mark.parametrize("options", [{"avss": "paper"}, {"decision": "masked"}])
def test_options_that_weak_supervision_cannot_heed_are_refused(options):
    with pytest.raises(UsageError):
        AVELConfig(supervision="weak", **options)


def test_nothing_scored_is_said():
    with pytest.raises(DataError, match="no clip was scored"):
        AVELMetrics(CLASSES).compute()


def test_clips_in_no_split_are_listed_and_noisy_rows_are_background(tmp_path):
    write_ave(tmp_path, [*LINES, "Bark&ccccccccccc&good&0&1"])
    assert [d.text for d in read_annotations(tmp_path).defects if d.kind == "clip in no split"] == [
        "ccccccccccc"
    ]
    with h5py.File(tmp_path / "labels_noisy.h5", "w") as file:
        file["avadataset"] = np.eye(29)[[28, 3]]
    with pytest.raises(DataError, match="one-hot label of background"):
        read_annotations(tmp_path)


def test_cmbs_decides_one_class_on_relevant_segments():
    parse = Parse(
        video=StreamPredictions(av=Prediction(torch.eye(28)[[4]], activation="softmax")),
        relevance=Prediction(torch.tensor([[1.0, -1.0, 2.0]])),
    )
    assert make_task("avel", AVELConfig()).decide(parse)["segment"].tolist() == [[4, 28, 4]]
    parse.relevance = Prediction(torch.tensor([[0.6, 0.4, 0.5]]), "probability")
    parse.aux["raw_logits"] = torch.eye(29)[[7]]
    found = {
        r: make_task("avel", AVELConfig(supervision="weak", weak_relevance=r)).decide(parse)
        for r in ("threshold", "official")
    }
    assert {k: v["segment"].tolist() for k, v in found.items()} == {
        "threshold": [[7, 28, 28]],
        "official": [[7, 7, 7]],
    }


def test_unknown_options_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'mil'"):
        AVELConfig(weak_target="mill")
