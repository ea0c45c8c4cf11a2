"""`avplatform reproduce ovavel` on tiny stores: our figures stand beside the published ones."""

import json

import numpy as np
import pytest

from avplatform.catalogue.published import published_tables
from avplatform.cli import main
from avplatform.data.adapters.ovave.classes import BACKGROUND, EVENTS, TEXTS
from avplatform.data.adapters.world import unit
from avplatform.data.simulate import simulate
from avplatform.data.store.schema import LABEL_FILE
from avplatform.models.texts.sources import open_source
from avplatform.reproduce import reproduce
from avplatform.reproduce.reproduce import find_data, make_plan
from avplatform.reproduce.targets import TABLES, open_rows, wanted
from avplatform.sweeps.runner import PROGRAM, Outcome
from tests.data.official import bring_in
from tests.data.test_import_ovave import CLIPS, write_ovave

LEAP = "identity-leap-ovavel-joint"
OURS = "ours / validation"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of seven clips: of a joint model, with its text vectors, and of two networks."""
    folder = tmp_path_factory.mktemp("open")
    annotations = write_ovave(folder / "ovave")
    for name, preset in (("joint", "sim-ovavel-1-joint"), ("plain", "sim-ovavel-1")):
        simulate("ovavel", annotations, folder / name, preset=preset)
    return folder


def in_this_process(jobs, **_):
    """Do all jobs without starting a process, which takes most of the time of a short one."""
    assert all(main(job.command()[len(PROGRAM) :]) == 0 for job in jobs)
    return Outcome(finished=[job.name for job in jobs])


def planned(store, **labels):
    data = find_data([str(store)])
    return make_plan(["ovavel"], data, labels=labels, seeds=1, only=(), extra={}, checkpoints=None)


def reproduced(store, out, *flags):
    """Return the named numbers of the page that the command writes after two steps of each run."""
    given = ["reproduce", "ovavel", "--data", str(store), "--out", str(out), "--seeds", "1"]
    assert main([*given, "--max-steps", "2", "--cpu", *flags]) == 0
    return json.loads((out / "page.json").read_text(encoding="utf-8"))["cells"]


def test_leap_has_rows_of_ours_without_published_figures():
    rows = open_rows()
    assert [w.row.method for w in wanted("ovavel")][-len(rows) :] == [w.row.method for w in rows]
    assert all(not w.row.metrics and w.row.note.startswith("ours, not published") for w in rows)
    settings = {w.row.method: w.setting.stem for w in rows}
    assert settings["LEAP, joint space"] == f"{LEAP}_imagebind"
    assert settings["AVE + LEAP"] == "ave-leap-ovavel"


def test_without_vectors_of_a_joint_model_leap_reads_glove_and_the_file_of_a_store_is_named(stores):
    plan = planned(stores / "plain")
    assert {"ave-leap-ovavel", "psp-leap-ovavel", "mmpyr-leap-ovavel"} <= set(plan.runs)
    missing = "not run: no IMAGEBIND vectors given; give --labels imagebind="
    assert plan.missing[f"{LEAP}_imagebind"] == missing + "FILE"
    file = stores / "joint" / LABEL_FILE
    assert planned(stores / "joint").missing[f"{LEAP}_imagebind"] == missing + str(file)
    assert f"{LEAP}_imagebind" in planned(stores / "joint", imagebind=str(file)).runs


def test_our_figures_of_leap_stand_beside_the_published_ones(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "run_jobs", in_this_process)
    labels = ["--labels", f"imagebind={stores / 'joint' / LABEL_FILE}"]
    cells = reproduced(stores / "joint", tmp_path, *labels, "--only", LEAP)
    results = json.loads(
        (tmp_path / "runs" / f"{LEAP}_imagebind_seed-1" / "results.json").read_text()
    )
    for name in ("seen_segment_F", "unseen_accuracy", "average"):
        ours = cells[f"ovavel / LEAP, joint space / {OURS} / {name}"]
        assert ours["values"] == [results["test"][name]] and ours["paper"] is None
    (v1,) = (
        row for row in published_tables()[TABLES["ovavel"]].rows if row.method.endswith("(v1)")
    )
    there = cells[f"ovavel / {v1.method} / paper / test / unseen_event_F"]
    assert there["published"] == v1.metrics["unseen_event_F"]
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "ours, not published" in page and "SYNTHETIC features" in page
    assert "not run: left out by --only" in page and "no CLIP-CLAP vectors given" in page


@pytest.mark.slow
def test_every_row_that_can_be_run_is_trained_and_stands_beside_its_published_figures(
    stores, tmp_path, monkeypatch
):
    monkeypatch.setattr(reproduce, "run_jobs", in_this_process)
    labels = ["--labels", f"imagebind={stores / 'joint' / LABEL_FILE}"]
    cells = reproduced(stores / "joint", tmp_path, *labels)
    run = [
        w for w in wanted("ovavel") if w.setting is not None and "clip-clap" not in w.setting.stem
    ]
    assert len(run) == 9
    for item in run:
        selection = "test (optimistic)" if item.row.selection == "test" else "validation"
        ours = cells[f"ovavel / {item.title} / ours / {selection} / unseen_accuracy"]
        assert ours["n"] == 1 and ours["paper"] == item.row.metrics.get("unseen_accuracy")


def test_clip_and_clap_agree_on_a_second_as_their_published_row_says(
    tiny_teachers, tmp_path, monkeypatch
):
    """What it is compared with asks each model apart, for its own stream alone."""
    monkeypatch.setattr(reproduce, "run_jobs", in_this_process)
    texts = {
        name: open_source(f"{name}:{tiny_teachers[name]}").embed(TEXTS["other"]).numpy()
        for name in ("clap", "clip")
    }
    folder, rng = write_ovave(tmp_path / "ovave"), np.random.default_rng(0)
    right = []
    for split, category, clip, bits in CLIPS:
        has, label = np.array(list(bits)) == "1", EVENTS.index(category)
        heard = np.where(has, label, rng.integers(0, 68, 10))
        seen = np.where(rng.random(10) < 0.7, heard, rng.integers(0, 68, 10))
        best = []
        for name, stream, told in (("clap", "audio", heard), ("clip", "visual", seen)):
            vectors = texts[name][told] + 0.01 * rng.standard_normal((10, 12))
            (folder / stream).mkdir(exist_ok=True)
            np.save(folder / stream / f"{clip}.npy", vectors.astype(np.float32))
            best.append((unit(vectors) @ unit(texts[name]).T).argmax(axis=1))
        agree = best[0] == best[1]
        found = best[0][agree.argmax()] if agree.any() else BACKGROUND
        if split == "test":
            true = np.where(has, label, BACKGROUND)
            right.append(np.where(agree, found, BACKGROUND) == true)
    assert 0.2 < np.mean(right) < 1
    bring_in("ovave", folder, tmp_path / "store", dtype="float32")
    source = f"joined:clap:{tiny_teachers['clap']}+clip:{tiny_teachers['clip']}"
    flags = ["--labels", f"clip-clap={source}", "--only", "clip-clap"]
    cells = reproduced(tmp_path / "store", tmp_path / "out", *flags)
    ours = cells[f"ovavel / CLIP & CLAP, training-free / {OURS} / accuracy"]
    assert ours["values"] == [pytest.approx(100 * np.mean(right))] and ours["paper"] == 51.5
    assert ours["features"].endswith("labels: joined:clap:clap+clip:clip")
