"""`avplatform reproduce`: its plan, its refusals, and one real run from command to page."""

import json
import shutil

import pytest
import torch

from avplatform.base.console import Console
from avplatform.cli import main
from avplatform.commands.reproduce import make_page
from avplatform.config.build import build_model, build_task
from avplatform.config.compose import parse
from avplatform.config.presets import preset_options
from avplatform.models.errors import DataError, UsageError
from avplatform.reproduce import reproduce
from avplatform.reproduce.reproduce import (
    RUNS,
    carry_out,
    collect,
    find_data,
    make_plan,
)
from avplatform.reproduce.targets import (
    ALL,
    TABLES,
    read_labels,
    settings_of,
    target_names,
    wanted,
)
from avplatform.sweeps.sweep import resolve
from tests.ledger.folders import write_runs

QUIET = Console(enabled=False)


@pytest.fixture(scope="module")
def data(small_stores):
    return find_data([str(small_stores["avel"].parent)])


def planned(data, targets=("table2",), **changes):
    given = dict(labels={}, seeds=2, only=(), extra={}, checkpoints=None)
    return make_plan(list(targets), data, **{**given, **changes})


def test_all_means_every_table_in_the_papers_order():
    assert target_names(["all"]) == list(ALL) == target_names(["fig4", "all"])
    assert set(TABLES) - set(ALL) == {"ovavel"} == set(target_names(["ovavel"]))
    assert target_names(["table5", "table1", "table5"]) == ["table1", "table5"]
    with pytest.raises(UsageError, match="unknown target 'tabel1'; did you mean 'table1'"):
        target_names(["tabel1"])
    with pytest.raises(UsageError, match="say what to reproduce, before the options: table1, "):
        target_names([])


def test_labels_are_given_by_kind():
    assert read_labels(["bert=a=b", "clip=x"]) == {"bert": "a=b", "clip": "x"}
    for text, message in (("berd=x", "did you mean 'bert'"), ("bert", "say where they come from")):
        with pytest.raises(UsageError, match=message):
            read_labels([text])


def test_one_folder_may_hold_both_stores(data, small_stores):
    assert {task: source.spec.task for task, (_, source) in data.items()} == {
        "avel": "avel",
        "avvp": "avvp",
    }
    assert set(find_data([str(small_stores["avvp"])])) == {"avvp"}
    with pytest.raises(UsageError, match="two datasets for avvp"):
        find_data([str(small_stores["avvp"]), str(small_stores["avvp"].parent)])
    with pytest.raises(DataError):
        find_data([str(small_stores["avvp"] / "none")])


def test_the_paper_needs_each_setting_once_and_all_of_them_resolve(data):
    plan = planned(
        data,
        ALL,
        labels={"bert": "b.safetensors", "clip": "c.safetensors"},
        extra={"max_steps": 2},
    )
    assert len(plan.runs) == 44 and not plan.missing
    names = [run.name for runs in plan.runs.values() for run in runs]
    assert len(set(names)) == 88
    found = {}
    for runs in plan.runs.values():
        config = resolve(runs[1], where="here")
        chosen = preset_options(config.preset).get("select_on", "validation")
        assert (config.seed, config.max_steps, config.select_on) == (2, 2, chosen)
        assert config.score_test  # one training gives the figures of both selections
        found[runs[0].name.removesuffix("_seed-1")] = config
    assert found["mmpyr-leap-avvp-official_blocks-4_avss-off"].decoder_config.blocks == 4
    assert found["mmpyr-leap-avvp-official_avss-off"].task_config.avss == "off"
    assert found["mmpyr-leap-avvp-official_avss-off_bert"].labels.embeddings == "b.safetensors"
    assert found["mmpyr-leap-avvp-official"].labels.embeddings == "glove-50d"
    other = planned(data, ["table1"], labels={"glove": "g.txt"}).runs[
        "mmpyr-leap-avvp-official_avss-off"
    ]
    assert other[0].options["labels"] == {"embeddings": "g.txt"}


def test_rows_that_nobody_has_published_say_so_and_have_no_published_figures():
    rows = {w.row.method: w for w in wanted("table4")}
    mine = {name: w for name, w in rows.items() if not w.row.metrics}
    assert len(rows) == 23 and len(mine) == 9
    assert all(w.row.note.startswith("ours, not published; ") for w in mine.values())
    found = {name: (w.setting.rule, w.row.supervision) for name, w in mine.items()}
    assert found["HAN, no visual Speech label"] == ("drop", "weak")
    assert found["HAN + LEAP, MA's exchange"] == ("exchange", "weak")
    assert found["HAN + LEAP, JoMoLD's denoising"] == ("noise-ratio", "weak")
    assert found["HAN + LEAP, CMPAE's denoising"] == ("noise-ratio", "weak")
    assert found["MM-Pyr + LEAP, MA's exchange"] == ("exchange", "pseudo")


def test_both_readings_of_cvcms_and_dhhn_stand_with_their_own_settings():
    rows = {w.row.method: w for w in wanted("table4")}
    names = list(rows)
    for name, kind in (("CVCMS", 57.5), ("DHHN", 57.5)):
        assert names.index(f"{name}, refined labels") == names.index(name) + 1
        weak, refined = rows[name], rows[f"{name}, refined labels"]
        assert weak.row.metrics["segment_Type@AV"] == kind and not weak.setting.rule
        assert refined.row.metrics["segment_Type@AV"] == 60.5
        assert refined.setting.rule == "exchange"
        assert refined.setting.base.preset == "ma-mmil-avvp-weak-official"
    assert rows["DHHN, refined labels"].setting.preset == "dhhn-refined-mmil-avvp-weak"


def test_refined_labels_are_made_once_before_the_runs_that_read_them(data, tmp_path, monkeypatch):
    only = ("han-leap-avvp-weak_drop", "han-leap-avvp-weak_exchange", "cvcms-avvp-weak-official_e")
    plan = planned(data, ["table4"], only=only, out=tmp_path)
    found = {}
    monkeypatch.setattr(
        reproduce, "run_jobs", lambda jobs, **_: found.update({j.name: j for j in jobs})
    )
    carry_out(plan, tmp_path, parallel=1, console=QUIET, data=data, cache_dir="kept", cpu=True)
    base = "ma-mmil-avvp-weak-official_seed-1"
    exchange, drop = f"labels exchange_{base}", "labels drop_visual_Speech"
    assert found[exchange].needs == (base,) and found[drop].needs == () and base in found
    told = {name: found[name].command() for name in (exchange, drop)}
    assert all(words[words.index("--cache-dir") + 1] == "kept" for words in told.values())
    assert "--cpu" in told[exchange] and "--cpu" not in told[drop]  # no model, no device
    assert found["han-leap-avvp-weak_exchange_seed-1"].needs == (exchange,)
    assert found["han-cvcms-avvp-weak-official_exchange_seed-1"].needs == (exchange,)
    for seed in (1, 2):
        name = f"han-leap-avvp-weak_drop_seed-{seed}"
        assert found[name].needs == (drop,)
        config = resolve(plan.runs["han-leap-avvp-weak_drop"][seed - 1], where="test")
        assert config.task_config.refined == str(tmp_path / "labels" / "drop_visual_Speech.json")
    words = told[drop]
    assert words[words.index("drop") :][:3] == ["drop", "--visual", "Speech"]
    assert words[words.index("--data") + 1] == data["avvp"][0]
    assert words[words.index("--out") + 1].endswith("drop_visual_Speech.json")


def test_what_cannot_be_run_is_said(data, small_stores):
    plan = planned(find_data([str(small_stores["avvp"])]), ["table1", "table5"])
    assert (
        plan.missing["mmpyr-leap-avvp-official_avss-off_clip"]
        == "not run: no CLIP vectors given; give --labels clip=FILE"
    )
    assert (
        plan.missing["ave-dch-avel"]
        == "not run: no data for avel given; give --data with a store of AVE"
    )
    with pytest.raises(UsageError, match="nothing to run: no data for avel given"):
        planned(find_data([str(small_stores["avvp"])]), ["table5"])


def test_checkpoints_are_found_by_the_names_of_their_settings(data, tmp_path):
    for name in ("mmpyr-leap-avvp-official", "cmbs-dch-avel-weak-official", "notes"):
        (tmp_path / name).mkdir()
    for name in ("mmpyr-leap-avvp-official", "cmbs-dch-avel-weak-official"):
        (tmp_path / name / "config.json").write_text("{}")
    assert set(planned(data, ["table2", "table5"], checkpoints=tmp_path).checkpoints) == {
        "mmpyr-leap-avvp-official", "cmbs-dch-avel-weak"
    }  # fmt: skip
    assert set(planned(data, ["table2"], checkpoints=tmp_path).checkpoints) == {
        "mmpyr-leap-avvp-official"
    }
    (tmp_path / "han-mmil-avp").mkdir()
    (tmp_path / "han-mmil-avp" / "config.json").write_text("{}")
    with pytest.raises(
        UsageError, match="not have the name of a setting .*; did you mean 'han-mmil-avvp'"
    ):
        planned(data, checkpoints=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        planned(data, checkpoints=tmp_path / "none")


def test_runs_of_other_options_or_other_data_are_not_taken(data, tmp_path):
    plan = planned(data, only=("han-mmil",))
    write_runs(plan, tmp_path, data)
    assert carry_out(plan, tmp_path, parallel=1, console=QUIET, data=data).skipped == [
        r.name for r in plan.runs["han-mmil-avvp"]
    ]
    other = planned(data, only=("han-mmil",), extra={"epochs": 1})
    with pytest.raises(UsageError, match="was made with epochs 40, but now it should have 1"):
        carry_out(other, tmp_path, parallel=1, console=QUIET, data=data)
    file = tmp_path / RUNS / "han-mmil-avvp_seed-2" / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "data_checksum": "other"}))
    with pytest.raises(UsageError, match="was trained on other data"):
        carry_out(plan, tmp_path, parallel=1, console=QUIET, data=data)


@pytest.mark.slow
def test_the_page_alone_calls_no_run_what_it_is_not(data, tmp_path, small_stores, capsys):
    """Without training, runs of a short schedule or of other data would pass as the recipe's."""
    extra = {"max_steps": 1, "precision": "no"}
    write_runs(planned(data, only=("han-mmil",), extra=extra), tmp_path, data)
    command = [
        "reproduce",
        "table2",
        "--data",
        str(small_stores["avel"].parent),
        "--seeds",
        "2",
        "--only",
        "han-mmil",
    ]
    command += ["--out", str(tmp_path), "--page-only"]
    assert main(command) == 2
    assert "was made with max_steps 1, but now it should have None" in capsys.readouterr().err
    assert main([*command, "--max-steps", "1"]) == 0
    assert "SHORT SCHEDULE" in (tmp_path / "page.md").read_text()
    file = tmp_path / RUNS / "han-mmil-avvp_seed-2" / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "data_checksum": "other"}))
    assert main([*command, "--max-steps", "1"]) == 2
    assert "was trained on other data" in capsys.readouterr().err
    assert main(["reproduce", "table2", "--data", "demo", "--page-only", "--out", str(file)]) == 1
    assert "give another --out" in capsys.readouterr().err


def test_runs_that_failed_stand_on_the_page_with_their_reason(data, tmp_path):
    plan = planned(data, only=("han-mmil",))
    write_runs(plan, tmp_path, data)
    shutil.rmtree(tmp_path / RUNS / "han-mmil-avvp_seed-2")
    shelf = collect(
        plan, tmp_path, data=data, labels={}, failed={"han-mmil-avvp_seed-2": "no space left"}
    )
    assert shelf.missing["han-mmil-avvp"] == "1 of 2 runs missing: no space left"
    group = make_page(["table2"], shelf, data, command="", cpu=True).sections[0].groups[1]
    assert (
        group.lines[1].figures["event_A"].values
        and group.lines[-1].message == "1 of 2 runs missing: no space left"
    )


def test_figure_4_shows_the_same_clips_of_two_models(data, tmp_path):
    plan = planned(data, ["fig4"], seeds=1)
    write_runs(plan, tmp_path, data)
    for decoder, stem in (("mmil", "mmpyr-mmil-avvp"), ("leap", "mmpyr-leap-avvp-official")):
        flags = [
            "--task",
            "avvp",
            "--decoder",
            decoder,
            "--encoder-config.width",
            "16",
            "--encoder-config.hidden",
            "16",
        ]
        config = parse(flags)
        torch.manual_seed(0)
        model = build_model(config, build_task(config), data["avvp"][1].spec)
        model.save_pretrained(tmp_path / RUNS / f"{stem}_seed-1" / "model")
    shelf = collect(plan, tmp_path, data=data, labels={}, failed={})
    (part,) = make_page(["fig4"], shelf, data, command="", cpu=True).sections
    assert part.pictures[0][1].stat().st_size > 10_000
    assert (
        "runs/mmpyr-mmil-avvp_seed-1 and LEAP: runs/mmpyr-leap-avvp-official_seed-1"
        in part.notes[-1]
    )
    shutil.rmtree(tmp_path / RUNS / "mmpyr-mmil-avvp_seed-1" / "model")
    (part,) = make_page(["fig4"], shelf, data, command="", cpu=True).sections
    assert not part.pictures and part.notes[0].startswith("not drawn: no model folder")
    shelf.runs["mmpyr-mmil-avvp"] = []
    (part,) = make_page(["fig4"], shelf, data, command="", cpu=True).sections
    assert not part.pictures and part.notes == ["mmpyr-mmil-avvp: not run"]


def test_wrong_options_end_in_one_message(capsys, small_stores):
    store = ["--data", str(small_stores["avel"])]
    for args, message in (
        (["table9", *store], "unknown target 'table9'"),
        (["table5", *store, "--seeds", "0"], "seeds is 0"),
        (["table2", *store], "nothing to run: no data for avvp given"),
        (["table1", *store, "--labels", "x=y"], "unknown kind of label embeddings 'x'"),
    ):
        assert main(["reproduce", *args]) == 2
        assert message in capsys.readouterr().err


def test_the_list_of_runs_writes_nothing(tmp_path, capsys, small_stores):
    out = tmp_path / "out"
    assert (
        main(
            [
                "reproduce",
                "table5",
                "--data",
                str(small_stores["avel"]),
                "--out",
                str(out),
                "--dry-run",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.count("0 of 5 finished") == 12 and not out.exists()


def test_from_the_command_to_the_page(tmp_path, small_stores, capsys):
    """Train one setting for one step; its model as the authors' checkpoint scores the same."""
    out, models = tmp_path / "out", tmp_path / "models"
    command = ["reproduce", "table2", "--data", str(small_stores["avvp"]), "--out", str(out),
               "--seeds", "1", "--max-steps", "1", "--only", "han-mmil", "--cpu"]  # fmt: skip
    assert main(command) == 0
    assert "1 finished now, 0 before, 0 failed" in capsys.readouterr().out
    run = out / RUNS / "han-mmil-avvp_seed-1"
    shutil.copytree(run / "model", models / "han-mmil-avvp")
    assert main([*command, "--checkpoints", str(models)]) == 0
    assert "1 finished now, 1 before, 0 failed" in capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert results["precision"] == "no"  # one precision for all runs of a page
    cells = json.loads((out / "page.json").read_text())["cells"]
    for metric, value in results["test"].items():
        row = f"table2 / HAN + MMIL, L_basic / {{}} / {metric}"
        ours = cells[row.format("ours / validation")]
        theirs = cells[row.format("authors' checkpoint, re-scored / not stated (the authors')")]
        best = cells[row.format("ours, best epoch on test / test (optimistic)")]
        assert best["values"] == [pytest.approx(value, abs=1e-9)]  # the only epoch
        assert ours["values"] == [value] and ours["runs"] == ["runs/han-mmil-avvp_seed-1"]
        assert theirs["values"] == [pytest.approx(value, abs=1e-9)] and theirs["n"] == 1
    text = (out / "page.md").read_text()
    assert (
        "SHORT SCHEDULE: each of our runs was cut short (--max-steps 1)" in text
        and "SYNTHETIC features" in text
    )
    assert len((out / RUNS / "ledger.jsonl").read_text().splitlines()) == 1


def test_settings_have_names_that_say_what_they_are():
    assert set(settings_of(["table2"])) == {
        "han-mmil-avvp", "han-leap-avvp-official_avss-off", "han-leap-avvp-official",
        "mmpyr-mmil-avvp", "mmpyr-leap-avvp-official_avss-off", "mmpyr-leap-avvp-official",
    }  # fmt: skip
