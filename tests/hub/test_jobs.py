"""`avplatform train ... --job`: what a job runs, what is refused, and how the model comes back.

The Hub's machines are a stub: the command that they would run is run here, against the stand-in for
the Hub. It does not show queues, prices, GPUs, images, or what the real service refuses.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from avplatform.cli import main
from avplatform.hub.jobs import SCRIPT
from avplatform.version import __version__
from tests.hub.fake_hub import TOKEN, FakeHub, environment
from tests.hub.test_hub import client, command, done
from tests.posix import needs_posix

JOB = ["--job", "a10g-small", "--job-repo", "me/model"]
SMALL = ["--task", "avel", "--batch-size", "8", "--max-steps", "2", "--cpu", "--no-save-plots"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return the list of jobs that were started; there is a token, and the Hub is on."""
    jobs = []

    def run_job(**plan):
        jobs.append(plan)
        return SimpleNamespace(id="123", url="https://hub.example/jobs/me/123")

    monkeypatch.setattr("huggingface_hub.run_job", run_job)
    monkeypatch.setattr("avplatform.hub.jobs.get_token", lambda: TOKEN)
    monkeypatch.setattr("avplatform.hub.jobs.is_offline_mode", lambda: False)
    monkeypatch.chdir(tmp_path)
    return jobs


def test_a_job_gets_the_command_the_image_the_machine_and_the_token_as_a_secret(started, capsys):
    assert main(["train", *SMALL, "--data", "me/data", *JOB, "--job-private"]) == 0
    (job,) = started
    words = ["bash", "-c", SCRIPT, "job", f"avplatform[text]=={__version__}", "me/model"]
    assert job["command"] == [*words, "--private", *SMALL, "--data", "me/data"]
    assert (job["image"], job["flavor"], job["timeout"]) == ("python:3.12", "a10g-small", "24h")
    assert job["secrets"] == {"HF_TOKEN": TOKEN}
    assert TOKEN not in json.dumps({**job, "secrets": None})
    shown = capsys.readouterr().out
    assert "job 123" in shown and "hf jobs logs 123" in shown and "me/model" in shown
    assert TOKEN not in shown and not os.listdir()


def test_a_dry_run_shows_the_job_without_the_token_and_starts_nothing(started, capsys):
    assert main(["train", *SMALL, *JOB, "--dry-run", "--job-image", "me/image:1"]) == 0
    shown = capsys.readouterr().out
    plan = json.loads(shown)
    assert started == [] and TOKEN not in shown and plan["secrets"] == {"HF_TOKEN": "(not shown)"}
    assert plan["image"] == "me/image:1" and "--dry-run" not in plan["command"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "store"], "--data store is on this machine"),
        (["--data", "./me/data"], "--data ./me/data is on this machine"),
        (["--init-from", "runs/one"], "--init-from runs/one is on this machine"),
        (["--labels.embeddings", "words.npy"], "--labels.embeddings words.npy is on this machine"),
        (["--output-dir", "out"], "--output-dir names a place on this machine"),
        (["--config", "own.yaml"], "--config names a place on this machine"),
        (["--task", "avle"], "did you mean 'avel'"),
        (["--job", "a10g-smal"], "did you mean 'a10g-small'"),
        (["--job-repo", "model"], "has no owner; give owner/name"),
        (["--job-repo", "me/a b"], "give owner/name"),
    ],
)
def test_what_a_job_could_not_read_is_refused_before_anything_is_started(
    started, tmp_path, capsys, flags, said
):
    (tmp_path / "store").mkdir()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "words.npy").write_bytes(b"")
    (tmp_path / "own.yaml").write_text("epochs: 3\n", encoding="utf-8")
    assert main(["train", *SMALL, *JOB, *flags]) == 2
    assert said in " ".join(capsys.readouterr().err.split()) and started == []


def test_without_a_token_or_offline_no_job_is_started(started, monkeypatch, capsys):
    monkeypatch.setattr("avplatform.hub.jobs.get_token", lambda: None)
    assert main(["train", *SMALL, *JOB]) == 2
    assert "hf auth login" in capsys.readouterr().err
    monkeypatch.setattr("avplatform.hub.jobs.is_offline_mode", lambda: True)
    assert main(["train", *SMALL, *JOB]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err and started == []


def test_a_job_that_the_hub_does_not_start_is_asked_for_once(started, monkeypatch, capsys):
    asked = []

    def refuse(**plan):
        asked.append(plan)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.run_job", refuse)
    assert main(["train", *SMALL, *JOB]) == 1
    said = capsys.readouterr().err
    assert "the job was not started: it could not be reached" in said and len(asked) == 1
    assert "hf jobs ps" in said and TOKEN not in said


@needs_posix  # the machines of the Hub run Linux
def test_the_command_of_a_job_trains_on_data_of_the_hub_and_pushes_the_model(
    started, small_stores, tmp_path
):
    hub = FakeHub()
    try:
        env = environment(hub, tmp_path / "home") | {"AVPLATFORM_CACHE": str(tmp_path / "cache")}
        push = command("data", "push", small_stores["avel"], "me/data")
        done(client(hub, tmp_path, push))
        assert main(["train", *SMALL, "--data", "me/data", *JOB]) == 0
        machine = tmp_path / "machine"
        machine.mkdir()
        env |= started[0]["env"]
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        ran = subprocess.run(
            started[0]["command"],
            cwd=machine,
            env=env,
            capture_output=True,
            encoding="utf-8",
            timeout=900,
        )
        assert ran.returncode == 0, ran.stdout[-1500:] + ran.stderr[-1500:]
        files = hub.repos["models/me/model"].files()
        results = json.loads((machine / "run" / "results.json").read_text(encoding="utf-8"))
        assert {"config.json", "model.safetensors", "README.md"} <= {*files}
        assert results["steps"] == 2 and results["data"] == "demo-avel-1"
    finally:
        hub.close()
