"""`avplatform board` shows the runs of a folder in trackio's dashboard, on this machine alone."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from avplatform.cli import main
from avplatform.commands import board
from tests.posix import needs_posix

ROOT = Path(__file__).resolve().parent.parent
needs_trackio = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None,
    reason='needs trackio (pip install "avplatform[track]")',
)
START = """
import json, os, sys
from pathlib import Path
asked = open("asked.jsonl", "w", encoding="utf-8", buffering=1)

def note(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
        print(json.dumps([event, *map(str, args)]), file=asked)

sys.addaudithook(note)
from avplatform.commands import board
board.LOOK = 0.2
from avplatform.cli import main
sys.exit(main(["board", "runs", "--no-open", "--port", sys.argv[1]]))
"""


def write_run(folder, name, records, **options):
    place = folder / "runs" / name
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(json.dumps({"task": "avel", **options}), encoding="utf-8")
    write_records(place, records)
    return place


def write_records(place, records):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (place / "metrics.jsonl").write_text(lines, encoding="utf-8")


def steps(count, scale=1.0):
    return [{"event": "step", "epoch": 1, "step": n, "lr": 0.1, "loss": scale / n}
            for n in range(1, count + 1)]  # fmt: skip


def ask(port, name, **given):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{name}",
        data=json.dumps(given).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["data"]


@needs_trackio
@needs_posix
def test_the_board_shows_all_runs_and_new_records_and_asks_no_other_machine(tmp_path):
    from tests.processes import free_port

    scored = {"event": "epoch", "epoch": 1, "step": 3, "split": "validation", "accuracy": 50.0}
    one = write_run(tmp_path, "one", [*steps(3), scored], optim={"lr": 0.1})
    write_run(tmp_path, "sweep/two", steps(2, scale=2.0))
    port, home = free_port(), str(tmp_path / "home")
    elsewhere = {"TRACKIO_SPACE_ID": "owner/space", "TRACKIO_SERVER_URL": "http://192.0.2.1"}
    env = {**os.environ, **elsewhere, "PYTHONPATH": str(ROOT), "HOME": home, "TMPDIR": home}
    Path(home).mkdir()
    shown = subprocess.Popen(
        [sys.executable, "-c", START, str(port)],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip
    try:
        for line in shown.stdout:
            if "Ctrl-C ends it" in line:
                break
        names = ask(port, "get_runs_for_project", project=board.PROJECT)
        assert sorted(run["name"] for run in names) == ["one", "sweep/two"]
        write_records(one, [*steps(3), scored, steps(4)[-1]])
        deadline = time.monotonic() + 60
        while len(logs(port, "one")) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        found = {record["step"]: record["train/loss"] for record in logs(port, "one")
                 if "train/loss" in record}  # fmt: skip
        assert found == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3), 4: 0.25}
        (score,) = [r for r in logs(port, "one") if "validation/accuracy" in r]
        assert (score["step"], score["validation/accuracy"]) == (3, 50.0)
        assert [r["train/loss"] for r in logs(port, "sweep/two")] == [2.0, 1.0]
    finally:
        shown.send_signal(signal.SIGINT)
        rest, _ = shown.communicate(timeout=60)
    assert shown.returncode == 0, rest
    asked = (tmp_path / "asked.jsonl").read_text(encoding="utf-8").splitlines()
    assert asked and [line for line in asked if "127.0.0.1" not in line] == []
    assert not list(Path(home).glob("avplatform-board-*"))


def logs(port, run):
    return ask(port, "get_logs", project=board.PROJECT, run=run)


def test_without_runs_or_trackio_the_board_says_what_is_missing(tmp_path, monkeypatch, capsys):
    assert main(["board", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["board", str(tmp_path)]) == 2
    assert "there is no run in" in capsys.readouterr().err
    write_run(tmp_path, "one", steps(1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["board", str(tmp_path)]) == 2
    assert 'pip install "avplatform[track]"' in capsys.readouterr().err


def test_records_become_the_values_that_trackers_get():
    step = {"event": "step", "epoch": 1, "step": 2, "lr": 0.1, "loss": 3.0}
    assert board._values(step) == {"train/lr": 0.1, "train/loss": 3.0}
    epoch = {"event": "epoch", "epoch": 1, "step": 2, "split": "test", "accuracy": 4.0}
    assert board._values(epoch) == {"test/accuracy": 4.0}
    assert board._values({"event": "resume", "step": 4, "resumed_from_step": 4}) == {}
