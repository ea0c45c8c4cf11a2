"""LEAP on MM-Pyr epoch by epoch, beside the published curve of a run on the real LLP."""

import json

import numpy as np
import pytest
import yaml

from avplatform.catalogue.curves import published_curves
from avplatform.cli import main
from avplatform.config.values import to_dict
from avplatform.reproduce import plots
from avplatform.reproduce.curve import EPOCHS, curve_section, epochs_of, runs_of
from avplatform.reproduce.plots import epoch_curves
from avplatform.reproduce.tables import Shelf
from avplatform.reproduce.targets import CURVES, wanted
from avplatform.sweeps.sweep import PlannedRun, resolve
from avplatform.tasks.avvp.metrics import averages
from tests.ledger.folders import ten
from tests.test_plots import is_sane_png


def write_begun(folder, data, *, seed=1, epochs=3, split="validation", **changes):
    """Write a run that is still training: its options, and the figures of some epochs."""
    rng = np.random.default_rng(seed)
    options = {"preset": "mmpyr-leap-avvp-official", "data": str(data), "seed": seed, **changes}
    config = to_dict(resolve(PlannedRun(name=folder.name, options=options), where="test"))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    records = [{"event": "step", "epoch": 1, "step": 1, "loss": 1.0}]
    for n in range(1, epochs + 1):
        where = {"epoch": n, "step": n, "split": split}
        records.append({"event": "epoch", **where, **ten(rng)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return records[1:]


def test_the_published_curves_are_whole_and_have_the_tasks_figures():
    assert set(published_curves()) == set(CURVES.values())
    for curve in published_curves().values():
        assert list(curve) == list(range(1, 31))
        for figures in curve.values():
            assert set(figures) == set(averages(np.ones((1, 8))))
            three = [figures[f"event_{stream}"] for stream in ("A", "V", "AV")]
            assert np.mean(three) == pytest.approx(figures["event_Type@AV"], abs=0.11)


def test_a_run_that_is_still_training_stands_beside_the_real_one(
    small_stores, tmp_path, monkeypatch
):
    titles = []
    save = plots.save_figure
    monkeypatch.setattr(
        plots, "save_figure", lambda f, file: titles.append(f.get_suptitle()) or save(f, file)
    )
    first = write_begun(tmp_path / "a", small_stores["avvp"], seed=1)
    faster = {"optim": {"lr": 3e-4}}
    second = write_begun(tmp_path / "b", small_stores["avvp"], seed=2, epochs=2, **faster)
    out = tmp_path / "out"
    runs = ["--run", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["reproduce", "curve", *runs, "--out", str(out)]) == 0
    cells = json.loads((out / "page.json").read_text())["cells"]
    seen = 0
    for epoch in EPOCHS:
        real = published_curves()["glove-300d"][epoch]
        for name, value in real.items():
            key = f"curve / glove-300d, epoch {epoch} / {{}} / this epoch, validation / {name}"
            assert cells[key.format("real run")]["published"] == value
            ours = cells.get(key.format("ours"))
            found = [lines[epoch - 1][name] for lines in (first, second) if epoch <= len(lines)]
            assert (ours["values"] if ours else []) == found
            if ours:
                record = {"event": "epoch", "epoch": epoch}
                assert all(term["record"] == record for made in ours["made_of"] for term in made)
                assert ours["difference"] == pytest.approx(np.mean(found) - value)
                seen += 1
    assert seen == 30
    text = (out / "page.md").read_text()
    assert text.count("no run of ours has come to this epoch") == len(EPOCHS) - 3
    assert "SYNTHETIC features" in text and "2 runs not finished" in text
    for rate in ("0.0001", "0.0003"):  # what each run shares with the real one, or not
        assert f"30 epochs, batches of 32, learning rate {rate}, precision float32" in text
    assert titles == ["Validation by epoch: LEAP on MM-Pyr (ours: synthetic features)"]
    assert is_sane_png(out / "plots" / "curve.png")


def test_runs_of_the_plan_and_both_label_embeddings_fill_the_same_table(small_stores, tmp_path):
    lines = write_begun(tmp_path / "clip", small_stores["avvp"], epochs=1)
    runs = runs_of([f"clip={tmp_path / 'clip'}"])
    assert list(runs) == ["mmpyr-leap-avvp-official_clip"]
    part = curve_section(Shelf(root=tmp_path, runs=runs, labels={"clip": "c.safetensors"}))
    assert [g.title for g in part.groups][:2] == ["clip, epoch 1", "clip, epoch 2"]
    assert part.groups[0].lines[1].figures["event_A"].values == [lines[0]["event_A"]]
    assert any("glove-300d: no run of ours" in note for note in part.notes)
    nothing = curve_section(
        Shelf(root=tmp_path, missing={w.setting.stem: "not run" for w in wanted("curve")})
    )
    assert len(nothing.groups) == 2 * len(EPOCHS)
    assert all([line.label for line in g.lines] == ["real run"] for g in nothing.groups)


def test_runs_that_are_no_such_runs_are_refused(small_stores, tmp_path, capsys):
    write_begun(tmp_path / "weak", small_stores["avvp"], preset="han-leap-avvp-weak")
    write_begun(tmp_path / "new", small_stores["avvp"], epochs=0)
    write_begun(tmp_path / "test", small_stores["avvp"], split="test", select_on="test")
    for args, message in (
        (["curve", "--run", str(tmp_path / "none")], "is not a run folder"),
        (["curve", "--run", str(tmp_path / "weak")], "trained encoder han, supervision weak; the"),
        (["curve", "--run", str(tmp_path / "new")], "has not finished an epoch yet"),
        (["curve", "--run", str(tmp_path / "test")], "never scored on validation (select_on test)"),
        (["table4", "--run", str(tmp_path / "new")], "--run is for the target curve alone"),
        (["table4"], "say what to train on"),
    ):
        assert main(["reproduce", *args, "--out", str(tmp_path / "out")]) != 0
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_are_gone_leave_it_open_whether_they_were_synthetic(tmp_path, small_stores):
    write_begun(tmp_path / "a", small_stores["avvp"])
    file = tmp_path / "a" / "config.yaml"
    config = yaml.safe_load(file.read_text()) | {"data": str(tmp_path / "gone")}
    file.write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    assert main(["reproduce", "curve", "--run", str(tmp_path / "a"), "--out", str(out)]) == 0
    assert "It is not known whether the features are synthetic" in (out / "page.md").read_text()


def test_epochs_of_other_splits_are_no_validation_figures(tmp_path, small_stores):
    write_begun(tmp_path / "a", small_stores["avvp"], epochs=1)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "epoch", "epoch": 2, "split": "test", "event_A": 1.0}))
    ((entry,),) = runs_of([str(tmp_path / "a")]).values()
    assert list(epochs_of(entry)) == [1]
    drawn = epoch_curves(
        {}, {}, ("event_A",), tmp_path / "empty.png", title="nothing", note="synthetic features"
    )
    assert is_sane_png(drawn)
