"""Evidence, thresholds and per-clip terms give back what tasks decide and score."""

import numpy as np
import pytest
import torch

from avplatform.data.adapters.ave.classes import BACKGROUND, EVENTS
from avplatform.data.adapters.registry import make_task
from avplatform.data.store.schema import events
from avplatform.evaluation.thresholds import apply_thresholds, choose_thresholds
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from tests.models.cells import SUPERVISED_CELLS, cell, random_batch


def scored(task, model, batch):
    with torch.no_grad():
        parse = model.eval()(batch.audio, batch.visual, batch.motion).parse
    decisions = task.decide(parse)
    metrics = task.metrics()
    metrics.update(decisions, batch)
    metrics.evidence = {
        name: value.numpy() for name, value in task.evidence(parse, decisions).items()
    }
    return metrics


@pytest.mark.parametrize(("task", "encoder", "decoder", "supervision"), SUPERVISED_CELLS)
def test_the_own_thresholds_give_the_own_decisions_in_every_cell(
    task, encoder, decoder, supervision
):
    torch.manual_seed(0)
    built = cell(task, encoder, decoder, supervision)
    metrics = scored(built.task, built.model, random_batch(task, 12))
    analysis, state = built.task.analysis(), metrics.state()
    own = {
        s: np.full(len(events(built.task.classes)), analysis.default_of(s))
        for s in analysis.streams
    }
    again = analysis.redecide(state, metrics.evidence, own)
    assert again.keys() == state.keys() and all(
        np.array_equal(again[name], state[name]) for name in state
    )
    means = {name: values.mean() for name, values in analysis.contributions(state).items()}
    figures = metrics.compute()
    assert means == pytest.approx({name: figures[name] for name in means})
    assert task == "ovavel" or means.keys() == figures.keys()


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "none"},
        {"gate": "modality"},
        {"threshold": 0.25},
        {"gate": "modality", "visual_segment_threshold": 0.4, "audio_video_threshold": 0.2},
    ],
)
def test_gates_and_thresholds_of_the_task_are_kept(options):
    torch.manual_seed(0)
    built = cell("avvp", "han", "mmil", task_options=options)
    metrics = scored(built.task, built.model, random_batch("avvp", 12))
    analysis, state = built.task.analysis(), metrics.state()
    limits = {s: np.full(25, analysis.default_of(s)) for s in analysis.streams}
    whole = options.get("threshold", 0.5)
    assert analysis.default_of("audio") == whole and state["predicted_audio"].any()
    assert analysis.default_of("visual") == options.get("visual_segment_threshold", whole)
    again = analysis.redecide(state, metrics.evidence, limits)
    assert all(np.array_equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "options", [{"decision": "masked"}, {"label_set": "events"}, {"segment_loss": "bce"}]
)
def test_the_decisions_of_event_localization_come_back_whatever_they_are(options):
    torch.manual_seed(0)
    built = cell("avel", "ave", "leap", "full", task_options=options)
    metrics = scored(built.task, built.model, random_batch("avel", 12))
    again = built.task.analysis().redecide(
        metrics.state(), metrics.evidence, {"av": np.full(28, 0.5)}
    )
    assert np.array_equal(again["predicted"], metrics.state()["predicted"])
    assert (metrics.evidence["label"] < BACKGROUND).all()


def task_of(name):
    return make_task(name)


def filled(name, state, evidence):
    metrics = task_of(name).metrics()
    metrics.merge([state])
    metrics.evidence = evidence
    return metrics


def localization(seed, *, cut):
    """Clips whose events of class 3 are told from background by `cut` and all others by 0.5."""
    rng = np.random.default_rng(seed)
    label, event = rng.integers(0, 6, size=(80, 10)), rng.random((80, 10)).astype(np.float32)
    true = np.where(event >= np.where(label == 3, cut, 0.5), label, BACKGROUND)
    predicted = np.where(event >= 0.5, label, BACKGROUND)
    state = {"row": np.arange(80), "predicted": predicted, "true": true, "video": label[:, 0]}
    return filled("avel", state, {"event": event, "label": label})


def test_a_threshold_is_found_on_validation_and_used_on_test():
    task = task_of("avel")
    thresholds = choose_thresholds(task.analysis(), localization(0, cut=0.8))["av"]
    assert thresholds[3] == pytest.approx(0.8) and set(np.delete(thresholds, 3)) == {0.5}
    test = localization(1, cut=0.8)
    tuned = apply_thresholds(task, test, {"av": thresholds})
    assert test.compute()["accuracy"] < 96 and tuned.compute()["accuracy"] == 100


def parsing(seed=0, clips=30):
    rng = np.random.default_rng(seed)
    state = {"row": np.arange(clips)}
    for stream in ("audio", "visual"):
        state[f"true_{stream}"] = np.repeat(rng.random((clips, 1, 25)) < 0.1, 10, axis=1) & (
            rng.random((clips, 10, 25)) < 0.8
        )
        state[f"predicted_{stream}"] = rng.random((clips, 10, 25)) < 0.1
    state["true_audio"][..., 24] = False
    state["weak"] = state["true_audio"].any(1) | state["true_visual"].any(1)
    state["video"] = np.ones((clips, 25), bool)
    evidence = {}
    for stream in ("audio", "visual"):
        evidence[stream] = np.where(state[f"true_{stream}"], 0.32, 0.28).astype(np.float32)
        evidence[f"gate_{stream}"] = np.ones((clips, 25), bool)
    return filled("avvp", state, evidence)


def test_thresholds_of_video_parsing_are_chosen_by_stream_and_class():
    task, validation = task_of("avvp"), parsing()
    thresholds = choose_thresholds(task.analysis(), validation)
    known = validation.state()["true_visual"].any(axis=(0, 1))
    assert (thresholds["visual"][known] == 0.3).all() and (
        thresholds["visual"][~known] == 0.5
    ).all()
    assert thresholds["audio"][24] == 0.5  # no clip of validation tells
    assert (
        apply_thresholds(task, parsing(1), {s: np.full(25, 0.3) for s in thresholds}).compute()[
            "segment_A"
        ]
        == 100
    )


def test_a_closed_gate_stays_closed():
    metrics = parsing()
    metrics.evidence["gate_audio"][:] = False
    tuned = apply_thresholds(
        task_of("avvp"), metrics, {s: np.full(25, 0.01) for s in ("audio", "visual")}
    ).state()
    assert not tuned["predicted_audio"].any() and tuned["predicted_visual"].all()


def test_class_terms_are_the_class_scores():
    metrics = parsing()
    terms, details = task_of("avvp").analysis().class_terms(metrics.state()), metrics.details()
    for level in ("segment", "event"):
        for stream, (above, below) in terms[level].items():
            stated = list(details[f"class_{level}"][stream].values())
            found = [
                100 * a / b if b else None for a, b in zip(above.sum(0), below.sum(0), strict=True)
            ]
            assert found == [None if s is None else pytest.approx(s) for s in stated]
    metrics = localization(0, cut=0.7)
    above, below = task_of("avel").analysis().class_terms(metrics.state())["segment"]["av"]
    for number, entry in enumerate(metrics.details()["per_class"].values()):
        assert below[:, number].sum() == entry["count"]
        if entry["count"]:
            assert 100 * above[:, number].sum() / below[:, number].sum() == pytest.approx(
                entry["accuracy"]
            )


def test_events_are_told_apart_by_where_they_are():
    state = parsing().state()
    found = task_of("avvp").analysis().presence(state)
    groups = {"audible_only": [], "visible_only": [], "audible_and_visible": []}
    for n in range(30):
        for c in range(25):
            truth = {s: state[f"true_{s}"][n, :, c] for s in ("audio", "visual")}
            decided = {s: state[f"predicted_{s}"][n, :, c] for s in ("audio", "visual")}
            heard, seen = truth["audio"].any(), truth["visual"].any()
            name = {
                (1, 0): "audible_only",
                (0, 1): "visible_only",
                (1, 1): "audible_and_visible",
            }.get((int(heard), int(seen)))
            if name:
                groups[name].append((truth, decided))

    def f(pairs, stream):
        scores = [
            2 * (t[stream] & d[stream]).sum() / (t[stream].sum() + d[stream].sum())
            for t, d in pairs
        ]
        return pytest.approx(100 * np.mean(scores))

    assert {name: entry["pairs"] for name, entry in found.items()} == {
        name: len(pairs) for name, pairs in groups.items()
    }
    assert found["audible_only"]["segment_audio"] == f(groups["audible_only"], "audio")
    assert found["visible_only"]["segment_visual"] == f(groups["visible_only"], "visual")
    assert found["audible_and_visible"]["segment_visual"] == f(
        groups["audible_and_visible"], "visual"
    )
    wrong = [d["visual"].any() for _, d in groups["audible_only"]]
    assert found["audible_only"]["wrongly_seen"] == pytest.approx(100 * np.mean(wrong))
    assert (
        "wrongly_heard" not in found["audible_only"]
        and task_of("avel").analysis().presence({}) is None
    )


def test_evidence_of_several_processes_is_joined_in_the_order_of_the_rows():
    from avplatform.evaluation.evaluate import _by_row

    parts = [
        {"row": np.array([8, 2]), "event": np.array([0.8, 0.2])},
        {"row": np.array([5]), "event": np.array([0.5])},
    ]
    assert _by_row(parts)["event"].tolist() == [0.2, 0.5, 0.8]
    assert _by_row([{"row": np.array([1])}]) is None


def test_a_class_that_the_gate_keeps_out_anyway_does_not_move_its_threshold():
    """False alarms in clips with a closed gate do not count, so a low threshold is free there."""
    validation = parsing()
    state, evidence = validation.state(), validation.evidence
    quiet = ~state["true_visual"].any(axis=1)  # (N, C)
    evidence["visual"][:] = np.where(
        quiet[:, None, :], 0.42, np.where(state["true_visual"], 0.32, 0.28)
    )
    evidence["visual"][:, ::2][state["true_visual"][:, ::2]] = 0.92
    evidence["gate_visual"][:] = ~quiet
    known = state["true_visual"].any(axis=(0, 1))
    assert (choose_thresholds(task_of("avvp").analysis(), validation)["visual"][known] == 0.3).all()


def test_a_segment_that_another_rule_made_background_is_scored_below_the_threshold():
    """Weakly supervised, a clip is background if that has the highest video score."""
    built = cell("avel", "ave", "leap", "weak")
    segment, video = torch.full((1, 10, 29), -5.0), torch.zeros(1, 29)
    segment[:, :, 4], video[:, BACKGROUND] = 5.0, 9.0
    streams = {
        "segment": StreamPredictions(av=Prediction(segment)),
        "video": StreamPredictions(av=Prediction(video)),
    }
    parse = Parse(**streams, queried_by_labels=True)
    decisions = built.task.decide(parse)
    evidence = built.task.evidence(parse, decisions)
    assert (decisions["segment"] == BACKGROUND).all() and (evidence["event"].half() < 0.5).all()


def test_eval_learns_thresholds_on_the_validation_split_and_on_no_other():
    from types import SimpleNamespace

    from avplatform.evaluation.extras import extras
    from avplatform.evaluation.options import EvalOptions

    data = SimpleNamespace(split=lambda name: SimpleNamespace(name=name))
    asked = []

    def score(arrays, title="score", change=None):
        asked.append(arrays.name)
        return localization(0, cut=0.8)

    own = localization(1, cut=0.65)
    metrics, content = extras(
        EvalOptions(model="", thresholds="validation"),
        task_of("avel"),
        data,
        SimpleNamespace(name="test"),
        own,
        score=score,
    )
    assert asked == ["validation"] and content["threshold_values"]["av"][
        EVENTS[3]
    ] == pytest.approx(0.8)
    assert (
        content["own_thresholds"] == {"test": own.compute()} and metrics.compute() != own.compute()
    )
