"""Open-vocabulary localization: figures by group, two lists of labels, stacking, every cell."""

import dataclasses
import json
from pathlib import Path
from statistics import harmonic_mean

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.config.build import new_model
from avplatform.config.run import LabelConfig, default_config
from avplatform.data import open_data
from avplatform.data.adapters.ovave.classes import BACKGROUND, EVENTS, SEEN, UNSEEN
from avplatform.data.adapters.registry import make_task, task_on
from avplatform.data.reading.restricted import RestrictedData, clips_per_class
from avplatform.hub.folder import model_folder
from avplatform.labels.open import never_trained_on
from avplatform.labels.unseen import calibrated
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError
from avplatform.tasks.batch import Batch
from avplatform.tasks.ovavel import OVAVELConfig
from avplatform.tasks.ovavel.metrics import NO_LABEL, OVAVELMetrics, clip_figures, event_f
from avplatform.tasks.ovavel.stacking import Stacking, amounts
from avplatform.tasks.registry import task_of_model
from avplatform.timeline.pipeline import pipeline
from avplatform.training.optim import build_optimizer
from avplatform.training.start import LABELS, of_classes
from avplatform.training.step import optimisation_step
from tests.models.cells import FEATURES, cell, random_batch

DOG, AIRPLANE = EVENTS.index("dog barking"), 0


def batch_of(segment, category):
    segment, count = torch.tensor(segment), len(segment)
    video = segment.amin(dim=1)  # background has the largest index
    rng = torch.Generator().manual_seed(0)
    return Batch(
        audio=torch.randn(count, segment.shape[1], 6, generator=rng),
        visual=torch.randn(count, segment.shape[1], 8, generator=rng),
        motion=None,
        row=torch.arange(count),
        clip_id=[f"clip{n}" for n in range(count)],
        labels={"segment": segment, "video": video, "category": torch.tensor(category)},
    )


def plain_event_f(predicted, true, labels):
    """The rule, written as it is read: every run against every run of its class."""

    def runs(row):
        at = [n for n in range(len(row)) if n == 0 or row[n] != row[n - 1]]
        return [(row[a], a, b) for a, b in zip(at, [*at[1:], len(row)], strict=True)]

    scores = []
    for label in sorted({*predicted, *true}):
        p = [(a, b) for k, a, b in runs(predicted) if k == label]
        g = [(a, b) for k, a, b in runs(true) if k == label]

        def found(one, others):
            return any(
                min(one[1], o[1]) - max(one[0], o[0]) >= (max(one[1], o[1]) - min(one[0], o[0])) / 2
                for o in others
            )

        tp = sum(found(run, g) for run in p)
        fn = sum(not found(run, p) for run in g)
        scores.append(2 * tp / (2 * tp + len(p) - tp + fn))
    return np.mean(scores)


def test_runs_are_compared_as_the_rule_says():
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 3, (300, 10)), rng.integers(0, 3, (300, 10))
    plain = [plain_event_f(p.tolist(), g.tolist(), 3) for p, g in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(event_f(predicted, true, 3), plain)


def test_a_segment_without_label_counts_for_no_class():
    true = np.array([[0, 0, 1, 1]])
    found = clip_figures(np.array([[0, 0, NO_LABEL, NO_LABEL]]), true, 2)
    assert found["segment_F"] == [0.5] and found["event_F"] == [0.5]
    nothing = np.full((1, 4), NO_LABEL)
    assert clip_figures(nothing, nothing, 2)["segment_F"] == [1.0]


def test_groups_follow_what_a_clip_was_collected_for_and_keep_its_background():
    segment = [[67] * 10, [DOG] * 10, [AIRPLANE] * 5 + [67] * 5]
    batch = batch_of(segment, [DOG, DOG, AIRPLANE])
    metrics = OVAVELMetrics([*EVENTS, "background"], UNSEEN)
    metrics.update({"segment": torch.full((3, 10), 67)}, batch)
    figures, details = metrics.compute(), metrics.details()
    assert figures["unseen_accuracy"] == 50 and figures["seen_accuracy"] == 50
    assert figures["accuracy"] == 50 and details["groups"] == {"seen": 1, "unseen": 2}
    three = [figures[name] for name in ("accuracy", "segment_F", "event_F")]
    assert figures["average"] == pytest.approx(np.mean(three))
    pair = figures["seen_average"], figures["unseen_average"]
    assert figures["harmonic_average"] == pytest.approx(harmonic_mean(pair))
    anchors = details["anchors"]
    assert anchors["always_background"] == figures
    assert anchors["true_category_everywhere"]["unseen_accuracy"] == 50
    assert anchors["true_clip_class_everywhere"]["unseen_accuracy"] == 100


def test_without_a_category_a_clip_without_event_is_in_neither_group():
    batch = batch_of([[67] * 10, [DOG] * 10, [AIRPLANE] * 10, [67] * 10], [DOG] * 4)
    del batch.labels["category"]
    metrics = OVAVELMetrics([*EVENTS, "background"], UNSEEN)
    metrics.update({"segment": torch.full((4, 10), 67)}, batch)
    figures, details = metrics.compute(), metrics.details()
    assert figures["accuracy"] == 50 and details["groups"] == {"seen": 1, "unseen": 1}
    assert figures["seen_accuracy"] == figures["unseen_accuracy"] == 0


def test_training_asks_for_the_seen_texts_and_everything_else_for_all():
    config, task, model = cell("ovavel", "ave", "leap")
    assert len(model.config.classes) == 68 and len(task.asked()) == 47
    assert model.config.label_texts[-1] == "other"
    batch = random_batch("ovavel")
    asked = model.eval()(batch.audio, batch.visual, asked=task.asked()).parse
    whole = model(batch.audio, batch.visual).parse
    kept = [n for n, name in enumerate(task.classes) if name not in UNSEEN]
    assert asked.segment.av.values.shape[-1] == 47
    torch.testing.assert_close(asked.segment.av.values, whole.segment.av.values[..., kept])
    batch.labels["segment"][0] = DOG
    with pytest.raises(ValueError, match="declared unseen"):
        task.loss(asked, model(batch.audio, batch.visual).encoding, batch)


@pytest.mark.parametrize("decoder", ["leap", "dch", "mmil"])
@pytest.mark.parametrize("encoder", ["han", "mmpyr", "ave", "psp", "cmbs"])
@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_every_cell_takes_two_steps_and_decides(encoder, decoder, supervision):
    config, task, model = cell("ovavel", encoder, decoder, supervision)
    batch, optimizer = random_batch("ovavel"), build_optimizer(model.train(), config.optim)
    before = [p.clone() for p in model.parameters()]
    for _ in range(2):
        result = optimisation_step(model, task, batch, optimizer, lr=1e-3)
        assert result.total.isfinite() and result.grad_norm > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    parse = model.eval()(batch.audio, batch.visual).parse
    decisions = task.decide(parse)
    texts = DECODERS[decoder].needs_labels
    assert len(model.config.classes) in ((68,) if texts else (46, 47))
    if not texts:  # no output for a class that was never trained
        unseen = [EVENTS.index(name) for name in UNSEEN]
        assert not np.isin(decisions["segment"].numpy(), unseen).any()
        assert task.probabilities(parse)["av"][..., unseen].abs().max() == 0
    metrics = task.metrics()
    metrics.update(decisions, batch)
    assert metrics.compute()["average"] >= 0
    evidence = task.evidence(parse, decisions)
    event = decisions["segment"] != BACKGROUND
    assert torch.equal(evidence["event"] >= 0.5, event)
    assert torch.equal(evidence["label"][event], decisions["segment"][event])
    assert ("seen" in evidence) == (texts and supervision == "full")


def open_parse(logits):
    values = Prediction(torch.as_tensor(logits))
    streams = StreamPredictions(audio=values, visual=values, av=values)
    return Parse(segment=streams, video=streams, queried_by_labels=True)


def test_the_unseen_classes_are_also_decided_among_themselves():
    task = make_task("ovavel")
    logits = torch.zeros(1, 2, 68)
    logits[0, :, AIRPLANE], logits[0, 0, DOG], logits[0, 1, BACKGROUND] = 3.0, 2.0, 1.0
    found = task.decide(open_parse(logits))
    assert found["segment"].tolist() == [[AIRPLANE, AIRPLANE]]
    assert found["unseen_only"].tolist() == [[DOG, BACKGROUND]]


def test_stacking_takes_from_seen_classes_until_validation_is_best():
    task = make_task("ovavel")
    logits = torch.zeros(4, 10, 68)
    logits[..., AIRPLANE], logits[:2, :, DOG] = 3.0, 2.5  # unseen clips lose by half a logit
    logits[2:, :, AIRPLANE] = 9.0
    segment = [[DOG] * 10] * 2 + [[AIRPLANE] * 10] * 2
    batch, parse = batch_of(segment, [DOG, DOG, AIRPLANE, AIRPLANE]), open_parse(logits)
    metrics, decisions = task.metrics(), task.decide(parse)
    metrics.update(decisions, batch)
    evidence = task.evidence(parse, decisions)
    metrics.evidence = {name: values.numpy() for name, values in evidence.items()}
    assert amounts(metrics.evidence)[0] == 0
    settled = task.settle(metrics)
    assert task.config.gamma is None and settled.config.gamma > 0.5
    chosen = Stacking(settled.config.gamma, BACKGROUND)
    assert np.array_equal(chosen.labels(metrics.evidence), segment)
    plain, stacked = settled.metrics(), settled.decide(parse)
    plain.update(stacked, batch)
    plain.evidence = metrics.evidence
    assert plain.compute()["unseen_accuracy"] == 0  # the decisions stay as they were
    details = plain.details()
    assert details["stacking"]["unseen_accuracy"] == 100
    assert "2 clips are of seen and 2 of unseen classes" in details["remarks"][0]
    assert "tuned on them" in details["remarks"][1]


def test_stacking_with_nothing_subtracted_decides_as_the_model_also_between_equal_scores():
    task = make_task("ovavel")
    logits = torch.zeros(1, 4, 68)  # all equal in the first second
    logits[0, 1, [DOG, BACKGROUND]] = logits[0, 2, [AIRPLANE, DOG]] = 1.0
    logits[0, 3, BACKGROUND] = 1.0
    parse = open_parse(logits)
    decisions = task.decide(parse)
    evidence = {n: v.numpy() for n, v in task.evidence(parse, decisions).items()}
    found, expected = Stacking(0.0, BACKGROUND).labels(evidence), decisions["segment"].tolist()
    assert found.tolist() == expected == [[AIRPLANE, DOG, AIRPLANE, BACKGROUND]]


def test_an_amount_that_cannot_be_subtracted_is_named():
    task = make_task("ovavel", OVAVELConfig(gamma=1.0))
    metrics, logits = task.metrics(), torch.zeros(1, 10, 68)
    metrics.update(task.decide(open_parse(logits)), batch_of([[DOG] * 10], [DOG]))
    assert "stacking" not in metrics.details()
    assert "Calibrated stacking with 1 is left out" in metrics.details()["remarks"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(gamma=1.0, label_set="events"), "with background among the texts"),
        (dict(gamma=float("nan")), "gamma"),
        (dict(gamma=1.0, decision="agreement"), "only the decision argmax"),
        (dict(gamma=1.0, supervision="weak"), "only the decision argmax"),
    ],
)
def test_options_that_this_task_cannot_have_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        OVAVELConfig(**options)


def test_the_geometric_combination_is_the_mean_of_the_log_probabilities():
    options = {"combine": "geometric"}
    _, task, model = cell("ovavel", "ave", "leap", decoder_options=options)
    batch = random_batch("ovavel")
    parse = model.eval()(batch.audio, batch.visual).parse
    a, v = (getattr(parse.segment, name).values.sigmoid() for name in ("audio", "visual"))
    torch.testing.assert_close(parse.segment.av.values.exp(), (a * v).sqrt())
    torch.testing.assert_close(parse.segment.av.probability.sum(-1), torch.ones(4, 10))
    assert parse.video.av.kind == "probability"
    assert torch.equal(task.decide(parse)["segment"], (a * v).argmax(dim=-1))
    asked = model(batch.audio, batch.visual, asked=task.asked())
    assert all(x.isfinite() for x in task.loss(*asked, batch).values())
    with pytest.raises(UsageError, match="'geometric' gives segments whose classes exclude"):
        cell("ovavel", "ave", "leap", decoder_options=options,
             task_options={"segment_loss": "bce"})  # fmt: skip
    with pytest.raises(UsageError, match="combine"):
        cell("avvp", "han", "leap", decoder_options=options)


def test_texts_of_events_alone_decide_by_the_clip_and_its_relevant_segments():
    options = {"joint_space": True, "centre_labels": True, "score_gain": 4.0, "score_bias": -6.0}
    _, task, model = cell(
        "ovavel", "identity", "leap", decoder_options=options, task_options={"label_set": "events"}
    )
    assert len(model.config.classes) == BACKGROUND
    batch = random_batch("ovavel")
    parse, encoding = model(batch.audio, batch.visual, asked=task.asked())
    assert parse.segment.av.values.shape[-1] == len(SEEN)
    assert set(task.loss(parse, encoding, batch)) == {"relevance", "video", "segment"}
    parse = model.eval()(batch.audio, batch.visual).parse
    decided, clip = task.decide(parse)["segment"], parse.video.av.values.argmax(dim=-1)
    relevant = parse.segment.av.values.logsumexp(dim=-1) > 0
    assert torch.equal(decided, torch.where(relevant, clip[:, None], BACKGROUND))
    assert parse.segment.av.values.shape[-1] == BACKGROUND


def test_what_depends_on_the_list_of_classes_is_refused():
    with pytest.raises(UsageError, match="has no scores of unseen"):
        cell("ovavel", "ave", "dch", task_options={"gamma": 1.0})
    config = default_config("ovavel")
    learned = dataclasses.replace(config, labels=LabelConfig(embeddings="learned"))
    with pytest.raises(UsageError, match="21 classes have no clip to learn"):
        new_model(learned, make_task("ovavel"), FEATURES["ovavel"])
    with pytest.raises(UsageError, match="21 classes of these data are unseen already"):
        make_task("ovavel").check_held_out("ave")
    with pytest.raises(UsageError, match="classify_queries is on, but depends on the list"):
        cell("ovavel", "cmbs", "leap", decoder_options={"classify_queries": True})
    for decoder in ("leap", "cosine"):
        with pytest.raises(UsageError, match="mgn has one token per class"):
            cell("ovavel", "mgn", decoder, encoder_options={"tokens": None})


@pytest.mark.parametrize("decoder", ["leap", "cosine"])
@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_no_weight_of_a_model_that_reads_texts_depends_on_the_number_of_classes(encoder, decoder):
    model = cell("ovavel", encoder, decoder).model
    assert of_classes(model) == {LABELS}  # the embeddings of the texts, which nothing trains


@pytest.mark.parametrize(("decoder", "count"), [("group", 46), ("mmil", 25), ("leap", 25)])
def test_mgn_has_tokens_of_seen_classes_or_as_many_as_published(decoder, count):
    model = cell("ovavel", "mgn", decoder).model
    assert len(model.encoder.audio_tokens) == len(model.encoder.visual_tokens) == count


def test_a_store_names_its_unseen_classes_and_counts_what_clips_hold(store):
    data = open_data(store, task="ovavel")
    counts = clips_per_class(data, ["train"])
    assert all(counts[name] == 0 for name in UNSEEN)
    category, video = (data.split("train").labels(n) for n in ("category", "video"))
    assert (category < BACKGROUND).all() and (video == BACKGROUND).any()
    assert sum(counts[name] for name in SEEN) == int((video != BACKGROUND).sum())


def test_clips_of_held_out_classes_are_those_collected_for_them(store):
    data, held = open_data(store, task="ovavel"), ["dog barking", "airplane flyby"]
    part = RestrictedData(data, held, holding=held).split("test")
    category = data.split("test").labels("category")
    wanted = np.isin(category, [DOG, AIRPLANE])
    assert part.rows.tolist() == data.split("test").rows[wanted].tolist()
    assert set(part.labels("category").tolist()) == {0, 1}


def test_unseen_classes_alone_are_scored_zero_shot(store, runs, capsys):
    held = ["dog barking", "helicopter"]
    assert main(["eval", runs["leap"], "--held-out", *held, "--cpu"]) == 0
    assert "zero-shot: the model was trained on none of them" in capsys.readouterr().out
    assert main(["eval", runs["leap"], "--held-out", *held, "airplane flyby", "--cpu"]) == 0
    assert "not zero-shot: the model was trained on airplane flyby" in capsys.readouterr().out


def test_closed_and_open_models_are_compared_clip_by_clip(runs, capsys):
    assert main(["compare", runs["leap"], runs["dch"]]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("accuracy", "segment_F", "event_F"))


@pytest.mark.parametrize("decoder", ["leap", "dch"])
def test_a_run_scores_all_groups_and_eval_repeats_it(runs, tmp_path, decoder, capsys):
    run = runs[decoder]
    out = tmp_path / "eval.json"
    assert main(["eval", run, "--cpu", "--json", str(out)]) == 0
    trained, again = (json.loads(f.read_text()) for f in (Path(run) / "results.json", out))
    figure = trained["selection"]["metric"]
    assert figure == ("seen_average" if decoder == "leap" else "average")
    assert again["test"] == pytest.approx(trained["test"])
    assert len(again["details"]["test"]["anchors"]) == 3
    assert {"seen_accuracy", "unseen_event_F", "average"} <= set(again["test"])
    texts = decoder == "leap"
    assert ("unseen_among_unseen_accuracy" in again["test"]) == texts
    assert ("stacking" in trained["details"]["test"]) == texts
    pair = [again["test"][f"{group}_average"] for group in ("seen", "unseen")]
    assert again["test"]["harmonic_average"] == pytest.approx(harmonic_mean(pair))
    config = json.loads((Path(run) / "model" / "config.json").read_text())
    assert len(config["classes"]) == (68 if texts else 47)
    assert "answers without training" in capsys.readouterr().out
    card = (Path(run) / "model" / "README.md").read_text()
    chosen = f"was selected on validation ({figure} {trained['selection']['value']:.2f})"
    assert chosen in card
    assert ("tuned on them" in card) == texts
    assert ("By the model's own scores it is hardly ever decided. With the bank" in card) == texts
    assert ("never finds one of the unseen classes of these data" in card) != texts


def test_a_bank_decides_the_unseen_classes_and_says_so(store, runs, tmp_path, capsys):
    out, found = tmp_path / "eval.json", {}
    for unseen in ("plain", "present"):
        given = ["eval", runs["leap"], "--cpu", "--unseen", unseen, "--json", str(out)]
        assert main(given) == 0
        found[unseen] = json.loads(out.read_text())
        said = "classes never trained on are calibrated by the model's bank, assuming that every"
        assert (said in " ".join(capsys.readouterr().out.split())) == (unseen == "present")
    assert "bank" not in found["plain"] and found["present"]["bank"]["assumed"] == "present"
    assert found["plain"]["test"] != found["present"]["test"]
    plain, banked = (found[n]["details"]["test"] for n in ("plain", "present"))
    assert "stacking" in plain and "stacking" not in banked
    assert any("tuned on them" in text for text in plain["remarks"])
    assert not any("tuned on them" in text for text in banked["remarks"])
    assert "is left out: the model's bank decides the unseen classes" in banked["remarks"][-1]
    assert main(["eval", runs["dch"], "--cpu", "--unseen", "present"]) == 2
    batch = open_data(store, task="ovavel").split("test").batch([3])
    features = {name: getattr(batch, name)[0].numpy() for name in ("audio", "visual")}
    timeline = pipeline(runs["leap"], extractor=object())(features)
    assert set(UNSEEN) <= set(timeline.never_trained_on) and timeline.bank == "training"
    assert "calibrated by the model's bank" in timeline.notes[0]


def test_unseen_classes_are_known_where_nobody_counted_clips(store, tmp_path, monkeypatch):
    monkeypatch.setattr("avplatform.training.setup.clips_per_class", lambda *_, **__: {})
    flags = ["train", "--task", "ovavel", "--encoder", "han", "--decoder", "leap", "--cpu"]
    flags += ["--encoder-config.width", "16", "--encoder-config.heads", "2", "--no-save-plots"]
    flags += ["--decoder-config.heads", "2", "--max-steps", "1", "--data", str(store)]
    assert main([*flags, "--output-dir", str(tmp_path / "run")]) == 0
    config = AVModel.from_pretrained(tmp_path / "run").config
    assert never_trained_on(config, EVENTS) == list(UNSEEN)


def test_numbers_are_picked_among_trained_classes_alone(runs, monkeypatch):
    model = AVModel.from_pretrained(model_folder(runs["leap"]))
    task, names = task_of_model(model.config), list(EVENTS)
    asked, real = [], type(task).with_classes
    monkeypatch.setattr(
        type(task), "with_classes", lambda self, n, t=None: asked.append(n) or real(self, n, t)
    )
    parser = calibrated(model, task, None, names, assumed="present")
    new = {names[n] for n in parser.columns}  # also seen classes of which this store has no clip
    assert set(UNSEEN) < new == set(never_trained_on(model.config, names))
    assert len(asked) >= 8 and all(set(n) == set(names) - new for n in asked)
    clips = random_batch("ovavel", features=model.config.features)
    with torch.inference_mode():
        plain, found = (
            m(clips.audio, clips.visual).parse.segment.av.values for m in (model, parser)
        )
    rest = [n for n in range(68) if n not in parser.columns]
    assert torch.equal(plain[..., rest], found[..., rest])
    assert not torch.equal(plain[..., parser.columns], found[..., parser.columns])


def test_a_saved_closed_model_is_scored_among_all_classes_of_the_data(store):
    config, task, model = cell("ovavel", "han", "dch")
    own, spec = task_of_model(model.config), open_data(store, task="ovavel").spec
    assert len(own.classes) == 47 and not own.unseen
    assert len(task_on(own, spec).classes) == 68 and task_on(own, spec).unseen == UNSEEN
