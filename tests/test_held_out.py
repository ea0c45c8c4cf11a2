"""Classes held out of a run: training never sees them, and they are scored by their texts."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.config.build import build_task
from avplatform.config.run import default_config
from avplatform.data import StoreWriter, open_data
from avplatform.data.reading.restricted import RestrictedData, classes_present
from avplatform.labels.held_out import data_for, find_classes
from avplatform.labels.open import nearest_trained
from avplatform.models.errors import UsageError
from avplatform.runs.results import class_figures
from tests.data.stores import columns_of, spec_of
from tests.models.cells import cell

HELD = {"avvp": ["Cheering", "Violin_fiddle"], "avel": ["Flute", "Goat"]}


def held_out(task, **options):
    config = dataclasses.replace(default_config(task), held_out=tuple(HELD[task]), **options)
    return config, build_task(config)


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_no_label_of_a_held_out_class_is_left_in_any_split(small_stores, task):
    data = open_data(small_stores[task], task=task)
    _, kept = held_out(task)
    seen = data_for(data, kept)
    events = [name for name in kept.classes if name != "background"]
    assert not set(events) & set(HELD[task]) and list(seen.spec.classes) == list(kept.classes)
    gone = [data.spec.classes.index(name) for name in HELD[task]]
    for name in ("train", "validation", "test"):
        whole, part = data.split(name), seen.split(name)
        present = classes_present(whole)
        others = np.delete(present, gone, axis=1)
        wanted = [
            whole.clip_ids[i] for i in np.flatnonzero(others.any(axis=1) | ~present.any(axis=1))
        ]
        assert part.clip_ids == wanted and len(part) == seen.rows(name)
        columns = [data.spec.classes.index(event) for event in events]
        rows = np.flatnonzero(np.isin(whole.rows, part.rows))
        assert (classes_present(part)[:, : len(events)] == present[rows][:, columns]).all()


def test_a_batch_of_the_rest_has_the_features_of_its_clips_and_fewer_columns(small_stores):
    data = open_data(small_stores["avvp"], task="avvp")
    part = data_for(data, held_out("avvp")[1]).split("test")
    whole = data.split("test")
    batch = part.batch([2, 0])
    places = [int(np.flatnonzero(whole.rows == row)[0]) for row in batch.row.tolist()]
    same = whole.batch(places)
    assert torch.equal(batch.audio, same.audio) and batch.clip_id == same.clip_id
    kept = [n for n, name in enumerate(data.spec.classes) if name not in HELD["avvp"]]
    for name, values in batch.labels.items():
        assert torch.equal(values, same.labels[name][..., kept]), name
    np.testing.assert_array_equal(part.labels("weak")[[2, 0]], batch.labels["weak"])


def test_background_stays_background_in_localization(small_stores):
    data = open_data(small_stores["avel"], task="avel")
    part, whole = data_for(data, held_out("avel")[1]).split("train"), data.split("train")
    rows = np.flatnonzero(np.isin(whole.rows, part.rows))
    assert ((part.labels("segment") == 26) == (whole.labels("segment")[rows] == 28)).all()
    assert part.labels("segment").max() == 26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(decoder="mmil"), "one output per class"),
        (dict(held_out=("Dgo",)), "did you mean 'Dog'"),
        (dict(held_out=("Dog", "dog")), "named twice"),
        (dict(streaming=True), "leave out --streaming"),
    ],
)
def test_what_cannot_be_held_out_is_refused(options, message):
    decoder = options.pop("decoder", "leap")
    config = dataclasses.replace(
        default_config("avvp", decoder=decoder), **{"held_out": ("Dog",), **options}
    )
    with pytest.raises(UsageError, match=message):
        build_task(config)


def test_all_classes_cannot_be_held_out_and_cmbs_has_no_such_run():
    task = build_task(default_config("avvp"))
    with pytest.raises(UsageError, match="leave some"):
        build_task(dataclasses.replace(default_config("avvp"), held_out=task.classes))
    with pytest.raises(UsageError, match="another encoder than cmbs"):
        build_task(dataclasses.replace(default_config("avel", "cmbs"), held_out=("Bark",)))


def test_classes_are_found_by_easier_names():
    avvp, avel = build_task(default_config("avvp")), build_task(default_config("avel"))
    assert find_classes(avvp, ["violin fiddle", "DOG"]) == ["Dog", "Violin_fiddle"]
    assert find_classes(avel, ["Race car"]) == ["Race car, auto racing"]


@pytest.mark.parametrize(("task", "shape"), [("avvp", "[B, 10, 23]"), ("avel", "[B, 10, 27]")])
def test_a_dry_run_shows_a_run_without_classes(small_stores, capsys, task, shape):
    flags = ["train", "--task", task, "--data", str(small_stores[task]), "--cpu", "--dry-run"]
    assert main([*flags, "--held-out", *HELD[task]]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"segment \w+: {re.escape(shape)}", out)
    rows = data_for(open_data(small_stores[task], task=task), held_out(task)[1]).rows("train")
    assert f"  train: {rows} clips" in out


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_run_without_classes_is_scored_on_them(small_stores, tmp_path, capsys, task):
    data, run = str(small_stores[task]), tmp_path / "run"
    held = HELD[task]
    small = [
        "--encoder",
        "han",
        "--encoder-config.width",
        "16",
        "--encoder-config.heads",
        "2",
        "--decoder-config.heads",
        "2",
    ]
    flags = [
        "train",
        "--task",
        task,
        *small,
        "--data",
        data,
        "--max-steps",
        "2",
        "--batch-size",
        "4",
        "--cpu",
    ]
    assert main([*flags, "--held-out", *held, "--output-dir", str(run)]) == 0
    config = json.loads((run / "model" / "config.json").read_text())
    assert not set(config["classes"]) & set(held) and len(config["classes"]) == len(
        config["label_texts"]
    )
    assert json.loads((run / "results.json").read_text())["held_out"] == held
    # Scored as it was trained, without naming anything: its own classes.
    assert main(["eval", str(run), "--cpu", "--json", str(tmp_path / "own.json")]) == 0
    own, trained = (
        json.loads(f.read_text()) for f in (tmp_path / "own.json", run / "results.json")
    )
    assert own["test"] == pytest.approx(trained["test"])
    for among in ("held-out", "all"):
        out = tmp_path / f"{among}.json"
        assert (
            main(
                [
                    "eval",
                    str(run),
                    "--held-out",
                    *held,
                    "--among",
                    among,
                    "--cpu",
                    "--json",
                    str(out),
                ]
            )
            == 0
        )
        content = json.loads(out.read_text())
        assert content["zero_shot"] and content["held_out"] == held and content["trained_on"] == []
        present = classes_present(open_data(data, task=task).split("test"))
        columns = [open_data(data, task=task).spec.classes.index(name) for name in held]
        assert content["details"]["test"]["clips"] == present[:, columns].any(axis=1).sum()
        found = content["by_class"]["test"]
        assert list(found) == held
        for name, entry in found.items():
            assert entry["nearest_trained"] in config["classes"], name
            assert -1 <= entry["similarity"] <= 1 and sum(entry["segments"].values()) > 0
        scores, counts = class_figures(content["details"]["test"])
        for series, values in scores.items():
            assert {n: e["figures"][series] for n, e in found.items()} == {
                name: values[name] for name in held
            }
            assert {n: e["segments"][series] for n, e in found.items()} == {
                name: counts[series][name] for name in held
            }
    said = capsys.readouterr().out
    assert "zero-shot: the model was trained on none of them" in said
    assert "nearest trained class" in said and "the classes that were named" in said


def test_the_nearest_trained_class_is_the_one_with_the_most_similar_text():
    made = cell("avvp", "han", "leap")
    names, model = list(made.model.config.classes), made.model
    found = nearest_trained(model, names, model.label_embeddings)
    own = model.label_embeddings - model.label_embeddings.mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(own[:, None], own[None], dim=-1)
    cosines.fill_diagonal_(-2)
    for row, name in enumerate(names):
        best = int(cosines[row].argmax())
        assert found[name][0] == names[best], name
        assert found[name][1] == pytest.approx(float(cosines[row, best]), abs=1e-5)
    assert found["Cello"][0] == "Violin_fiddle"
    # A class without a training clip is no neighbour, and a label that is no class has neighbours.
    model.config.training_clips = {name: int(name != "Violin_fiddle") for name in names}
    assert nearest_trained(model, ["viola"], own[[names.index("Cello")]])["viola"][0] in names
    assert "Violin_fiddle" not in {
        near for near, _ in nearest_trained(model, names, model.label_embeddings).values()
    }


def small_store(folder, *, categories):
    """Five clips of classes a and b by their segments; two hold no event."""
    spec = spec_of("maps")
    spec.labels["category"], spec.label_dtypes["category"] = [], "int64"
    if categories is None:
        del spec.labels["category"], spec.label_dtypes["category"]
    columns = columns_of(spec, 5)
    columns["segment"] = np.full((5, 5), 2)
    columns["segment"][0, 1], columns["segment"][1, :3], columns["segment"][2] = 0, 1, 0
    columns["video"] = np.array([0, 1, 0, 2, 2])
    if categories is not None:
        columns["category"] = np.array(categories)
    with StoreWriter(folder, spec) as writer:
        writer.add("test", columns)
    return open_data(folder, task="avel")


def test_clips_without_an_event_are_scored_as_background(tmp_path):
    data = small_store(tmp_path / "plain", categories=None)
    part = RestrictedData(data, ["a", "b"], holding=["a"]).split("test")
    assert part.clip_ids == ["clip0", "clip2", "clip3", "clip4"]
    assert (part.labels("segment")[2:] == 2).all()


def test_where_the_data_say_what_a_clip_was_collected_for_only_those_are_scored(tmp_path):
    data = small_store(tmp_path / "collected", categories=[0, 1, 0, 0, 1])
    part = RestrictedData(data, ["a", "b"], holding=["a"]).split("test")
    assert part.clip_ids == ["clip0", "clip2", "clip3"]
    assert classes_present(part)[:, :2].tolist() == [[True, False], [True, False], [False, False]]


def test_scoring_classes_that_were_trained_on_is_not_called_zero_shot(
    small_stores, tmp_path, capsys
):
    run = tmp_path / "run"
    flags = [
        "train",
        "--task",
        "avvp",
        "--encoder-config.width",
        "16",
        "--encoder-config.heads",
        "2",
        "--decoder-config.heads",
        "2",
    ]
    assert (
        main(
            [
                *flags,
                "--data",
                str(small_stores["avvp"]),
                "--max-steps",
                "1",
                "--cpu",
                "--output-dir",
                str(run),
            ]
        )
        == 0
    )
    assert main(["eval", str(run), "--held-out", "Speech", "--cpu"]) == 0
    assert "not zero-shot: the model was trained on Speech" in capsys.readouterr().out


def test_restricting_to_a_class_that_no_clip_holds_is_an_error(small_stores, capsys, tmp_path):
    data = open_data(small_stores["avvp"], task="avvp")
    present = classes_present(data.split("validation")).any(axis=0)
    missing = [name for name, there in zip(data.spec.classes, present, strict=True) if not there]
    assert missing  # otherwise nothing is tried here
    with pytest.raises(ValueError, match="no clip of the split"):
        RestrictedData(data, missing[:1], holding=missing[:1]).split("validation")


def test_runs_that_held_out_classes_are_compared_with_their_like_only(
    small_stores, tmp_path, capsys
):
    base = [
        "train",
        "--task",
        "avvp",
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "2",
        "--batch-size",
        "8",
        "--cpu",
    ]
    base += [
        "--encoder-config.width",
        "16",
        "--encoder-config.hidden",
        "16",
        "--no-save-plots",
        "--threads",
        "1",
    ]
    a, b, c = (str(tmp_path / name) for name in "abc")
    for out, flags in (
        (a, ["--held-out", "Dog"]),
        (b, ["--held-out", "Dog", "--optim.lr", "2e-3"]),
        (c, []),
    ):
        assert main([*base, "--output-dir", out, *flags]) == 0
    assert main(["compare", a, b, "--bootstrap", "50", "--out", str(tmp_path / "out")]) == 0
    assert main(["compare", a, c, "--bootstrap", "50"]) == 1
    assert "held out different classes" in capsys.readouterr().err
