"""Sweeps: axes become runs, all checked first; jobs are skipped, reported on failure, and ended."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from avplatform.base.console import Console
from avplatform.base.stopping import END_WITH_STDIN, THREAD, end_with_starter
from avplatform.cli import main
from avplatform.config.values import to_dict
from avplatform.models.errors import DataError, UsageError
from avplatform.runs.folder import RunFolder
from avplatform.sweeps.ledger import Entry, read_entries, write_ledger
from avplatform.sweeps.runner import Job, run_jobs, train_jobs
from avplatform.sweeps.scores import score_tables
from avplatform.sweeps.sweep import (
    PlannedRun,
    check_unchanged,
    plan,
    read_sweep,
    resolve,
)
from tests.posix import needs_posix

SWEEP = {
    "base": {"task": "avvp", "epochs": 3, "optim.lr": "1e-4"},
    "axes": {
        "encoder_config.width": [16, 32],
        "decoding": {
            "mmil": {"decoder": "mmil"},
            "leap": {"decoder": "leap", "task_config": {"avss": "official"}},
        },
    },
    "seeds": 2,
}
ROOT = Path(__file__).resolve().parent.parent.parent
QUIET = Console(enabled=False)


def write(folder, content):
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def wait_for(file, timeout=120.0):
    end = time.monotonic() + timeout
    while not file.exists():
        assert time.monotonic() < end, f"{file.name} did not appear"
        time.sleep(0.02)


def job(name, code, done):
    return Job(name=name, command=lambda: ["-c", code], done=done)


def test_every_combination_is_a_run_and_one_seed_comes_before_the_next(tmp_path):
    runs = read_sweep(write(tmp_path, SWEEP))
    assert [r.name for r in runs][:5] == [
        "width-16_mmil_seed-1", "width-16_leap_seed-1", "width-32_mmil_seed-1",
        "width-32_leap_seed-1", "width-16_mmil_seed-2",
    ]  # fmt: skip
    assert len(runs) == 8 and runs[3].axes == {
        "encoder_config.width": 32,
        "decoding": "leap",
        "seed": 1,
    }
    config = resolve(runs[3], where="here")
    assert (config.encoder_config.width, config.task_config.avss, config.epochs) == (
        32,
        "official",
        3,
    )
    assert (config.optim.lr, config.seed) == (1e-4, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": {}}, "unknown part 'axis'; did you mean 'axes'"),
        ({"axes": {"optim.lr": []}}, "axis 'optim.lr' must be a list of values"),
        ({"axes": {"optim.lr": [0.1, -1]}, "seeds": [1]}, "run lr--1_seed-1: .*lr"),
        (
            {"axes": {"encodr": ["han"]}},
            "run encodr-han_seed-1: its options: unknown option 'encodr'; did you mean 'encoder'",
        ),
        ({"axes": {"a": {"x": 5}}}, "axis a, label x must be a mapping of options, not 5"),
        ({"axes": None, "seeds": None}, "neither axes nor seeds"),
        ({"seeds": ["one"]}, "seeds is .*; give a list of whole numbers"),
        ({"base": {"output_dir": "x"}}, "leave out 'output_dir'"),
        ({"axes": {"epochs": [1, 1]}}, "two runs are named epochs-1_seed-1"),
        ({"axes": {"seed": [7, 8]}}, "'seed' is set on two axes"),
        (
            {"axes": {"optim.lr": [0.1], "rate": {"low": {"optim": {"lr": 0.01}}}}},
            "'optim.lr' is set on two axes",
        ),
        (
            {"axes": {"long": {"x" * 250: {"epochs": 1}}}},
            "has 257 characters; give its values short labels",
        ),
        (
            {"base": {"schedule.milestones": ["x"]}},
            "option .schedule.milestones. is .*; it must be of kind tuple",
        ),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_starts(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        read_sweep(write(tmp_path, {**SWEEP, **change}))
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.yaml"]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"data": "nowhere/at/all"}, "run seed-1: .*nowhere/at/all"),
        ({"task": "avvp"}, "run seed-1: the data in .* are for avel, not avvp"),
        (
            {"decoder": "leap", "labels": {"embeddings": "none.safetensors"}},
            "run seed-1: .*none.safetensors",
        ),
        (
            {"encoder": "han", "encoder_config": {"width": 15, "heads": 1}},
            "run seed-1: LEAPConfig.heads is 8; it must divide .*15",
        ),
        (
            {"decoder": "dch", "labels": {"pooling": "cls"}},
            "run seed-1: labels: dch does not use label embeddings",
        ),
    ],
)
def test_data_models_and_labels_that_do_not_fit_are_found_before_anything_starts(
    tmp_path, small_stores, base, message, capsys
):
    file = write(
        tmp_path, {"base": {"task": "avel", "data": str(small_stores["avel"]), **base}, "seeds": 1}
    )
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_a_sweep_may_hold_classes_out(tmp_path, small_stores, capsys):
    base = {"task": "avel", "data": str(small_stores["avel"])}
    axes = {"classes": {"held": {"held_out": ["Cat", "Violin"]}, "all": {"held_out": []}}}
    file = write(tmp_path, {"base": base, "axes": axes, "seeds": 1})
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert re.search(r"held_seed-1.*all_seed-1", capsys.readouterr().out, re.DOTALL)


def test_a_file_that_holds_itself_and_a_folder_that_cannot_be_made_are_said(
    tmp_path, small_stores, capsys
):
    file = tmp_path / "sweep.yaml"
    file.write_text("base: &all {optim: *all}\nseeds: 2\n")
    assert main(["sweep", str(file)]) == 1
    assert "holds an alias (*name) inside the value that it refers to" in capsys.readouterr().err
    file.write_text(
        f"base: {{data: {small_stores['avel']}, optim: &o {{lr: 0.1}}}}\n"
        "axes: {o: {a: {optim: *o}}}\nseeds: 1\n"
    )
    assert (
        main(["sweep", str(file), "--out", str(file)]) == 1
    )  # an alias that ends is none of that; a file is no folder
    assert "give another --out" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said_so(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 1
    assert "no sweep at" in capsys.readouterr().err


@needs_posix
def test_finished_jobs_are_skipped_and_failed_ones_do_not_stop_the_others(tmp_path):
    made = tmp_path / "made"
    good = f"open({str(made)!r}, 'w').write('x')"
    jobs = [
        job("before", "raise SystemExit(7)", lambda: True),
        job(
            "bad",
            "import sys; print('hello'); "
            "print('error: no such data', file=sys.stderr); sys.exit(2)",
            lambda: False,
        ),
        job("lying", "print('all went well')", lambda: False),
        job("killed", "import os; os.kill(os.getpid(), 9)", lambda: False),
        job("good", good, made.exists),
    ]
    outcome = run_jobs(jobs, logs=tmp_path / "logs", parallel=2, console=QUIET)
    assert (outcome.skipped, outcome.finished) == (["before"], ["good"])
    assert outcome.failed == {
        "bad": "no such data",
        "lying": "all went well",
        "killed": "killed by signal 9",
    }
    assert "hello" in (tmp_path / "logs" / "bad.log").read_text()


def test_no_more_jobs_run_at_a_time_than_asked_for(tmp_path):
    code = f"import os, time; d = {str(tmp_path)!r}; open(f'{{d}}/{{os.getpid()}}.on', 'w'); "
    code += (
        "n = sum(f.endswith('.on') for f in os.listdir(d)); time.sleep(0.3); "
        "open(f'{d}/{os.getpid()}.{n}', 'w'); "
    )
    code += "os.remove(f'{d}/{os.getpid()}.on')"
    run_jobs(
        [job(str(i), code, lambda: False) for i in range(4)],
        logs=tmp_path / "logs",
        parallel=2,
        console=QUIET,
    )
    counts = [int(p.suffix[1:]) for p in tmp_path.iterdir() if p.suffix[1:].isdigit()]
    assert len(counts) == 4 and max(counts) <= 2


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_jobs_and_leaves_them_time_to_save(tmp_path, number):
    code = f"""
import signal, sys, time
def save(*_):
    time.sleep(0.3)
    open({str(tmp_path / "saved")!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(60)
"""

    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(
            [job("long", code, lambda: False)], logs=tmp_path / "logs", parallel=1, console=QUIET
        )
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@needs_posix
def test_jobs_end_when_the_sweep_is_killed(tmp_path):
    """Jobs notice that the pipe which the sweep held is closed, and have time to save."""
    child = f"""
import signal, sys, time
from avplatform.base.stopping import end_with_starter
def save(*_):
    open({str(tmp_path / "saved")!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
end_with_starter()
assert sys.stdin.read() == "", "a question would wait for ever"
open({str(tmp_path / "ready")!r}, "w").close()
while True:
    time.sleep(0.05)
"""
    starter = f"""
from pathlib import Path
from tests.ledger.test_sweep import QUIET, job, run_jobs
jobs = [job("long", {child!r}, lambda: False), \
job("idle", "import time; time.sleep(1)", lambda: False)]
run_jobs(jobs, logs=Path({str(tmp_path / "logs")!r}), parallel=2, console=QUIET)
"""
    process = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT)
    wait_for(tmp_path / "ready")
    assert not (tmp_path / "saved").exists()
    process.kill()
    process.wait()
    wait_for(tmp_path / "saved")


def test_a_command_that_nobody_asked_to_end_reads_nothing(monkeypatch):
    for name in (END_WITH_STDIN, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    end_with_starter()
    assert THREAD not in [thread.name for thread in threading.enumerate()]


def test_a_sweep_waits_for_the_runs_of_a_killed_one_to_end(tmp_path):
    home = RunFolder(tmp_path / "one")
    home.path.mkdir()
    home.write_config({})
    home.lock()
    threading.Timer(0.3, home.unlock).start()
    begun = time.monotonic()
    first = train_jobs([PlannedRun(name="one", options={})], tmp_path, parallel=1, where="here")[0]
    assert "--resume" in first.command()
    assert 0.2 < time.monotonic() - begun < 20


def test_two_sweeps_do_not_work_in_one_folder(tmp_path):
    def inner():
        with pytest.raises(DataError, match="another process is using"):
            run_jobs(
                [job("b", "pass", lambda: False)], logs=tmp_path / "logs", parallel=1, console=QUIET
            )
        return ["-c", "pass"]

    run_jobs(
        [Job(name="a", command=inner, done=lambda: False)],
        logs=tmp_path / "logs",
        parallel=1,
        console=QUIET,
    )


def test_a_run_made_with_other_options_is_not_taken_for_this_one(tmp_path):
    run = plan({**SWEEP, "seeds": [1]}, where="here")[0]
    config = to_dict(resolve(run, where="here"))
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({**config, "threads": 4, "output_dir": "elsewhere"})
    )
    check_unchanged(tmp_path, config)
    del config["optim"]["weight_decay"]  # as if the option had not existed yet
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    config = to_dict(resolve(run, where="here"))
    check_unchanged(tmp_path, config)
    for name, value in (("max_steps", 5), ("optim", {**config["optim"], "lr": 0.5})):
        with pytest.raises(UsageError, match=f"was made with {name} .*give another --out"):
            check_unchanged(tmp_path, {**config, name: value})


def test_the_sweep_trains_resumes_and_fills_the_ledger(tmp_path, small_stores, capsys):
    """One real run, begun elsewhere and left without a checkpoint: the sweep goes on with it."""
    base = {"task": "avel", "data": str(small_stores["avel"]), "max_steps": 1, "batch_size": 8,
            "cpu": True, "precision": "no", "save_plots": False}  # fmt: skip
    file, out = (
        write(tmp_path, {"base": base, "axes": {"decoder": ["dch"]}, "seeds": [3]}),
        tmp_path / "out",
    )
    assert main(["sweep", str(file), "--out", str(out), "--dry-run"]) == 0
    assert "new        decoder-dch_seed-3" in capsys.readouterr().out and not out.exists()
    config = to_dict(resolve(read_sweep(file)[0], where="here"))
    (out / "decoder-dch_seed-3").mkdir(parents=True)
    (out / "decoder-dch_seed-3" / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 finished now, 0 before, 0 failed" in printed
    (line,) = [json.loads(text) for text in (out / "ledger.jsonl").read_text().splitlines()]
    results = json.loads((out / "decoder-dch_seed-3" / "results.json").read_text())
    assert (line["run"], line["results"]["test"], line["options"]["seed"]) == (
        "decoder-dch_seed-3",
        results["test"],
        3,
    )
    assert re.search(rf"decoder dch .* {results['test']['accuracy']:.1f} ", printed)
    assert {p.name for p in (out / "decoder-dch_seed-3").iterdir()} >= {"model", "metrics.jsonl"}
    assert not (out / "decoder-dch_seed-3" / "checkpoints").exists()
    assert (
        line["environment"] == results["environment"]
        and "resumed" in (out / "logs/decoder-dch_seed-3.log").read_text()
    )
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert "0 finished now, 1 before, 0 failed" in capsys.readouterr().out


def finished(folder, name, **results):
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps(results))


def test_the_table_of_a_sweep_has_a_row_per_combination_and_a_table_per_task(tmp_path):
    about = {"data": "demo", "synthetic": True, "encoder": "han", "decoder": "mmil"}
    about["selection"] = {"split": "validation"}
    scored = {"segment_Type@AV": 50.0, "event_Type@AV": 40.0, "segment_audio": 1.0}
    runs = [
        PlannedRun(name=f"lr-{lr}_seed-{seed}", options={}, axes={"lr": lr, "seed": seed})
        for seed in (1, 2)
        for lr in (0.1, 0.2)
    ]
    for run, more in zip(runs, (0, 5, 2, None), strict=True):
        if more is not None:  # the last run is not finished
            test = {name: value + more for name, value in scored.items()}
            finished(tmp_path, run.name, task="avvp", test=test, **about)
    runs.append(PlannedRun(name="seed-1", options={}, axes={"seed": 1}))
    finished(tmp_path, "seed-1", task="avel", test={"accuracy": 12.34}, **about)
    first, second = score_tables(runs, tmp_path)
    head = ["run", "seeds", "epoch picked on"]
    assert first == (
        "avvp, test of demo (SYNTHETIC features), percent",
        [*head, "segment_Type@AV", "event_Type@AV"],
        [
            ["lr 0.1", "2", "validation", "51.0 ± 1.4", "41.0 ± 1.4"],
            ["lr 0.2", "1", "validation", "55.0", "45.0"],
        ],
    )
    assert second[1:] == ([*head, "accuracy"], [["han + mmil", "1", "validation", "12.3"]])
    assert score_tables(runs, tmp_path / "elsewhere") == []


def test_the_ledger_forgets_runs_that_are_gone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 1\n")
        (tmp_path / name / "results.json").write_text(
            json.dumps({"test": {"accuracy": 1.0}, "selection": {"metric": "accuracy"}})
        )
    assert len(write_ledger(tmp_path).read_text().splitlines()) == 2
    (tmp_path / "a" / "results.json").unlink()
    assert len(write_ledger(tmp_path).read_text().splitlines()) == 1
    assert [e.folder.name for e in read_entries(tmp_path)] == ["b"]
    (tmp_path / "b" / "results.json").write_text('{"test": ')
    with pytest.raises(DataError, match="is not valid JSON; delete it"):
        write_ledger(tmp_path)


@pytest.mark.parametrize(("ties", "epoch"), [("first", 2), ("latest", 3)])
def test_the_epoch_picked_on_test_is_the_best_and_of_equals_as_ties_say(tmp_path, ties, epoch):
    (tmp_path / "results.json").write_text(json.dumps({"selection": {"metric": "m"}}))
    (tmp_path / "config.yaml").write_text(f"ties: {ties}\n")
    assert Entry(tmp_path).test_selected is None
    records = [
        {"event": "test_epoch", "epoch": n, "step": n, "m": m}
        for n, m in enumerate([1.0, 3.0, 3.0, 2.0], start=1)
    ]
    records.append({"event": "epoch", "epoch": 9, "step": 9, "m": 8.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert Entry(tmp_path).test_selected["epoch"] == epoch


def test_several_figures_pick_the_epoch_on_test_by_their_mean(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"selection": {"metric": "m+n"}}))
    (tmp_path / "config.yaml").write_text("ties: first\n")
    pairs = [(1.0, 4.0), (3.0, 3.0), (5.0, 0.0), (9.0, None)]
    records = [
        {"event": "test_epoch", "epoch": e, "step": e, "m": m} | ({} if n is None else {"n": n})
        for e, (m, n) in enumerate(pairs, start=1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert Entry(tmp_path).test_selected == records[1]


def test_the_page_on_sweeps_shows_one_that_works(tmp_path):
    text = (ROOT / "docs" / "reproduce.md").read_text()
    (tmp_path / "sweep.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    names = [run.name for run in read_sweep(tmp_path / "sweep.yaml")]
    assert len(names) == 12 and f"runs/lr/{names[0]}" in text
