"""The matrix as users see it: list, page, and information on cells, presets, runs and models."""

import json
import re
from pathlib import Path

import pytest

from avplatform.catalogue.cells import cells, find_cell
from avplatform.catalogue.figures import cell_record
from avplatform.catalogue.page import render
from avplatform.cli import main
from avplatform.config.compose import parse
from avplatform.config.presets import list_presets
from avplatform.config.run import default_config
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError
from avplatform.tasks.registry import TASKS
from tests.models.cells import build, random_batch
from tests.models.cells import cell as small_cell

ROOT = Path(__file__).resolve().parent.parent
ALL = cells()


def listed(capsys, *flags):
    assert main(["list", *flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_matrix_is_whole():
    expected = [
        (t, e, d, s)
        for t in TASKS
        for e in ENCODERS
        for d in DECODERS
        for s in TASKS[t].supervisions
    ]
    assert [(c.task, c.encoder, c.decoder, c.supervision) for c in ALL] == expected
    assert len(ALL) == 378
    assert {c.status for c in ALL} == {"published", "ours"}
    assert sorted(name for c in ALL for name in c.presets) == list_presets()


def test_published_cells_name_a_preset_of_their_own_where_code_was_released():
    published = {
        (task.name, encoder.name, decoder.name, supervision)
        for task in TASKS.values()
        for encoder, decoder, supervision in task.cells.published
    }
    assert len(published) == 18
    for cell in ALL:
        if (cell.task, cell.encoder, cell.decoder, cell.supervision) not in published:
            continue
        assert cell.status == "published" and cell.publications
        assert (
            (cell.exact in cell.presets)
            if any(p.code for p in cell.publications)
            else cell.exact in (None, *cell.presets)
        )
    figures = {(c.encoder, c.decoder) for c in ALL if c.figures}
    assert figures == {("ave", "leap"), ("psp", "leap"), ("cmbs", "leap")}


@pytest.mark.parametrize("cell", ALL, ids=lambda c: c.name)
def test_the_loss_line_says_what_the_task_computes(cell):
    built = small_cell(cell.task, cell.encoder, cell.decoder, cell.supervision)
    model, task = built.model.eval(), built.task
    batch = random_batch(cell.task)
    streams = batch.audio, batch.visual, batch.motion
    terms = set(task.loss(*model(*streams, asked=task.asked()), batch))
    words = {
        "pair": "AVPS" in cell.loss,
        "gate": "on the gate," in cell.loss or "on CMBS's gate" in cell.loss,
        "class_scores": "class scores of the gated queries" in cell.loss,
        "relevance": "BCE on relevance" in cell.loss,
        "segment_audio": "L_basic" in cell.loss,
        "global": "L_basic" in cell.loss or "three BCE terms" in cell.loss,
        "video": any(text in cell.loss for text in ("video logit", "video probability, over",
                                                    "clip's events in",
                                                    "pooled video", "occur in the",
                                                    "maximum over time of the segment logits",
                                                    "weighted segment scores",
                                                    "maximum over time of gate")),
        "segment": cell.task != "avvp" and any(
            text in cell.loss for text in ("every segment", "P_a P_v", "segment prob")
        ),
    }  # fmt: skip
    assert {name: name in terms for name in words} == words
    decisions = task.decide(model(*streams).parse)
    assert ("video" in decisions) == (cell.task == "avvp")


def test_presets_say_what_the_lines_on_defaults_say():
    parsed = {name: parse(["--preset", name]) for name in list_presets()}
    test_selected = {c.exact for c in ALL if "picked on test" in c.default}
    assert test_selected == {name for name, run in parsed.items() if run.select_on == "test"}
    soft = {c.exact for c in ALL if "soft margin" in c.default}
    assert soft == {c.exact for c in ALL if c.exact
                    and getattr(parsed[c.exact].task_config, "head_loss", "")
                    == "soft_margin"}  # fmt: skip
    assert all(getattr(default_config(c.task, c.encoder, c.decoder, c.supervision).task_config,
                       "head_loss", "ce") == "ce"
               for c in ALL)  # fmt: skip
    assert parsed["ave-dch-avel-weak-official"].select_on == "last"
    pooled = {
        c.encoder: re.search(r"pooled by (\w+)", c.default)[1]
        for c in ALL
        if "pooled by" in c.default
    }
    own = {"psp": "mean", "cmbs": "top4"}
    assert pooled == {name: own.get(name, "max") for name in ENCODERS}
    for encoder, pool in pooled.items():
        assert default_config("avel", encoder, "leap", "weak").task_config.weak_pool == pool
    assert default_config("avel", "psp", "leap", "full").task_config.weak_pool == "max"


def test_the_page_is_what_the_command_prints(capsys):
    assert main(["list", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed == render() == (ROOT / "docs/cells.md").read_text(), (
        "run `avplatform list --markdown > docs/cells.md`"
    )
    assert all(f"`{cell.name}`" in printed for cell in ALL)


def test_the_list_as_json_has_every_cell_with_cost_and_figures(capsys):
    found = {c["name"]: c for c in listed(capsys)["cells"]}
    assert len(found) == len(ALL)
    cell = found["avvp-mmpyr-leap-pseudo"]
    wanted = {
        "task",
        "encoder",
        "decoder",
        "supervision",
        "status",
        "source",
        "parameters",
        "flops_per_clip",
        "published",
    }
    assert wanted | {"presets"} <= set(cell)
    assert (
        cell["status"] == "published"
        and "LEAP (ECCV 2024)" in cell["source"]
        and cell["parameters"] == 47_128_068
    )
    four = [row for row in cell["published"] if row["table"] == "leap-table-4"]
    assert four[0]["event_Type@AV"] == 60.2 and four[0]["source"] == "LEAP (ECCV 2024), Table 4"
    assert cell["presets"] == [
        "mmpyr-leap-avvp",
        "mmpyr-leap-avvp-official",
        "mmpyr-leap-avvp-paper",
    ]
    ours = found["avvp-cmbs-dch-weak"]
    assert (ours["status"], ours["source"], ours["published"], ours["presets"]) == (
        "ours",
        None,
        [],
        [],
    )


def test_filters_choose_cells_and_kinds(capsys):
    assert [c["name"] for c in listed(
        capsys, "--task", "avel", "--encoder", "psp", "--decoder", "dch"
    )["cells"]] == [
        "avel-psp-dch-full", "avel-psp-dch-weak"
    ]  # fmt: skip
    assert set(listed(capsys, "presets")) == {"presets"}
    assert listed(capsys, "presets", "valor", "official")["presets"] == [
        "valor-mmil-avvp-official", "valorplus-mmil-avvp-official",
        "valorplusplus-mmil-avvp-official"
    ]  # fmt: skip
    assert [c["name"] for c in listed(capsys, "cells", "psp", "leap-weak")["cells"]] == [
        "avel-psp-leap-weak", "avvp-psp-leap-weak", "ovavel-psp-leap-weak"
    ]  # fmt: skip
    published = listed(capsys, "--published")
    assert set(published) == {"cells"}
    expected = {c.name for c in ALL if c.status == "published" or c.figures}
    assert {c["name"] for c in published["cells"]} == expected and 0 < len(expected) < len(ALL)
    assert {c["supervision"] for c in listed(capsys, "--supervision", "pseudo")["cells"]} == {
        "pseudo"
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "avle"], "unknown task 'avle'; did you mean 'avel'"),
        (["--encoder", "pps"], "unknown encoder 'pps'; did you mean 'psp'"),
        (["--supervision", "ful"], "unknown supervision 'ful'; did you mean 'full'"),
        (["--task", "avvp", "--supervision", "full"], "unknown supervision 'full'"),
        (["presets", "--task", "avel"], "choose cells; leave out 'presets'"),
        (["encoders", "nonsense"], "no encoder has 'nonsense' in its name"),
        (["--markdown", "--task", "avel"], "leave the filters out"),
    ],
)
def test_wrong_filters_are_refused(flags, message, capsys):
    assert main(["list", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 140])
def test_the_list_fits_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert "…" not in shown and all(cell.name in shown for cell in ALL)
    table = shown.split("tasks:")[0]
    assert ("mmpyr-leap-avvp[-official|-paper]" in table) == (width == 140)
    assert "64.8 / 60.2" in table and "LEAP Table 4" in table and "68.2*" in table


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("avel-ave-leap-full", "avel-ave-leap-full"),
        ("avel/ave/leap", "avel-ave-leap-full"),
        ("avvp/han/mmil/weak", "avvp-han-mmil-weak"),
        ("dmrn-dch-avel-official", "avel-ave-dch-full"),
    ],
)
def test_a_cell_is_found_by_its_name_and_by_its_presets(name, found):
    assert find_cell(name).name == found


@pytest.mark.parametrize("name", ["avel-ave-leap-ful", "avel/ave/lepa", "ave-leap-avell"])
def test_a_typo_gets_the_nearest_name(name, capsys):
    with pytest.raises(UsageError, match="did you mean 'ave"):
        find_cell(name)
    assert main(["info", name]) == 2
    assert "did you mean" in capsys.readouterr().err


def info(capsys, target):
    assert main(["info", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["info", str(target)]) == 0
    return found, re.sub(r"\s+", " ", capsys.readouterr().out)


def test_info_on_a_cell(capsys):
    found, shown = info(capsys, "avel-psp-dch-weak")
    assert (
        found["kind"] == "cell"
        and found["cell"] == cell_record(find_cell("avel-psp-dch-weak"))
        and found["differs"] == {}
    )
    assert found["config"]["encoder"]["variant"] == "weak" and found["inputs"]["visual"] == [
        1,
        10,
        7,
        7,
        512,
    ]
    assert (
        found["parameters"]["total"]
        == 1_253_902
        == sum(v for k, v in found["parameters"].items() if k != "total")
    )
    assert len(found["classes"]) == 29 and found["label_texts"] == []
    for text in (
        "published: PSP (CVPR 2021)",
        "psp-dch-avel-weak-official",
        "1,253,902",
        "74.3",
        "LEAP (ECCV 2024), Table 5",
    ):
        assert text in shown


def test_info_on_a_preset_says_in_what_it_differs_from_the_cells_defaults(capsys):
    found, shown = info(capsys, "han-leap-avvp-official")
    assert found["kind"] == "preset" and found["cell"]["name"] == "avvp-han-leap-pseudo"
    assert found["differs"]["task_config.avss"] == {"value": "official", "default": "off"}
    assert (
        found["recipe"]["epochs"] == 30
        and found["label_embeddings_from"] == "glove-50d"
        and found["label_dim"] == 50
    )
    assert "fry food" in shown and "task_config.avss: official (default off)" in shown
    tables = [row["table"] for row in found["published"]]
    assert len(tables) == 3 and {row["method"] for row in found["published"]} == {
        "HAN + LEAP",
        "HAN + LEAP, L_basic + L_avss",
    }
    assert (
        "3 more published rows: avplatform info avvp-han-leap-pseudo" in shown
        and "non-overlapping" not in shown
    )


def test_info_on_a_run_and_on_its_model(small_stores, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["train", "--task", "avel", "--decoder", "mmil", "--encoder-config.lstm-width", "8",
             "--max-steps", "2", "--cpu", "--data", str(small_stores["avel"]),
             "--output-dir", str(out), "--no-save-plots"]  # fmt: skip
    assert main(flags) == 0
    capsys.readouterr()
    found, shown = info(capsys, out)
    results = json.loads((out / "results.json").read_text())
    assert (found["kind"], found["cell"]["name"]) == ("run", "avel-ave-mmil-full")
    assert found["parameters"]["total"] == results["parameters"]
    assert found["results"]["test"] == results["test"] and found["results"]["synthetic"] is True
    assert (
        "SYNTHETIC features" in shown
        and f"epoch {results['selection']['epoch']} was kept, selected on validation" in shown
    )
    assert (
        "encoder_config.lstm_width: 8 (default 128)" in shown
        and f"{results['test']['accuracy']:.1f}" in shown
    )
    model, shown = info(capsys, out / "model")
    assert (
        model["kind"] == "model"
        and model["parameters"] == found["parameters"]
        and model["provenance"] is None
    )
    assert model["results"] == found["results"] and "recipe" not in model
    (out / "results.json").unlink()
    assert "the run did not finish; go on with --resume" in info(capsys, out)[1]


def test_info_on_a_converted_model_says_where_its_weights_come_from(tmp_path, capsys):
    build("avel", "ave", "leap").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(
        "# A model\n\n## Where the weights come from\n\n| | |\n|---|---|\n"
        "| published model | AVE (ECCV 2018) |\n"
        "| file | `AVE.pt` (zip) |\n\n| option | value | origin | |\n|---|---|---|---|\n"
        "| weak | no | default | x |\n\n"
        "## Use\n"
    )
    found, shown = info(capsys, tmp_path / "model")
    assert found["provenance"] == {"published model": "AVE (ECCV 2018)", "file": "AVE.pt (zip)"}
    assert "AVE.pt (zip)" in shown and found["results"] is None


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("./nothing", 1, "there is no folder ./nothing; give a run folder"),
        ("owner/nothing", 1, "cannot be fetched from the Hub"),
        ("empty", 1, "holds neither config.yaml (a run) nor config.json (a model)"),
        ("broken", 1, "config.json is not a model config"),
        ("nonsense", 2, "no model, cell, preset or folder 'nonsense'"),
    ],
)
def test_info_refuses_with_the_remedy(target, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert main(["info", target]) == code
    assert message in capsys.readouterr().err
