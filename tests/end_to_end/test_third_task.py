"""Open-vocabulary localization trains as every task: each clip once, and resumed to the bit."""

import json
import signal
from functools import partial

import pytest
import torch

from avplatform.data import open_data
from avplatform.data.reading.source import train_loader
from avplatform.data.simulate.demo import make_demo
from tests import processes
from tests.end_to_end.test_survive import die_at, records, signal_at, weights

SIZES = {"train": 46, "validation": 67, "test": 67}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("third") / "store"
    make_demo("ovavel", folder, sizes=SIZES)
    return folder


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_three_processes_read_every_clip_once_with_its_own_labels(store, streaming):
    data, seen, kinds = open_data(store, task="ovavel"), [], ("segment", "video", "category")
    split = data.split("train")
    place = {int(row): n for n, row in enumerate(split.rows)}
    for index in range(3):
        loader = train_loader(data, ["train"], streaming=streaming, batch_size=8, seed=1,
                              process_index=index, num_processes=3)  # fmt: skip
        for share in loader.epoch(1):
            rows = share.batch.row.tolist()[: share.clips]
            own = split.batch([place[row] for row in rows])
            assert all(
                torch.equal(share.batch.labels[n][: share.clips], own.labels[n]) for n in kinds
            )
            seen += rows
    assert sorted(seen) == sorted(place)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_told_to_stop_and_killed_a_run_ends_with_the_bits_of_one_that_never_stopped(
    store, tmp_path, count
):
    flags = ["train", "--task", "ovavel", "--encoder", "han", "--decoder", "leap"]
    flags += ["--encoder-config.width", "16", "--encoder-config.heads", "2", "--batch-size", "8"]
    flags += ["--decoder-config.heads", "2", "--max-steps", "9", "--checkpointing.every", "3"]
    flags += ["--epochs", "99", "--ema", "0.9", "--precision", "no", "--cpu", "--threads", "1"]
    flags += ["--no-save-plots", "--data", str(store)]
    whole, out, log = tmp_path / "whole", tmp_path / "stopped", tmp_path / "log"
    processes.run([*flags, "--output-dir", str(whole)], log, processes=count)
    told = partial(signal_at, step=4, signum=signal.SIGTERM, member=count - 1)
    shown = processes.run([*flags, "--output-dir", str(out)], log, processes=count, before=told)
    assert "stopped by SIGTERM after step 4; all is saved" in shown
    again = ["train", "--resume", str(out)]
    killed = partial(die_at, step=4, member=0)  # in step 8
    codes = processes.Launch(again, log, processes=count, before=killed).wait(120)
    assert codes[0] == -signal.SIGKILL and not (out / "results.json").exists()
    processes.run(again, log, processes=count)
    assert [r["resumed_from_step"] for r in records(out, "resume")] == [4, 6]
    a, b = weights(whole), weights(out)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    steps, losses = ([[r[k] for r in records(f, "step")] for f in (whole, out)]
                     for k in ("step", "loss"))  # fmt: skip
    assert steps == [list(range(1, 10))] * 2 and losses[0] == losses[1]
    first, second = (json.loads((f / "results.json").read_text()) for f in (whole, out))
    assert first["test"] == second["test"] and first["selection"] == second["selection"]
    assert first["details"]["test"]["groups"] == {"seen": 46, "unseen": 21}
    if count == 1:  # on two processes every clip is scored once, to the same figures
        scores = tmp_path / "scores.json"
        processes.run(
            ["eval", str(out), "--cpu", "--threads", "1", "--json", str(scores)], log, processes=2
        )
        found = json.loads(scores.read_text())
        assert found["processes"] == 2 and found["test"] == first["test"]
        assert found["details"]["test"]["groups"] == first["details"]["test"]["groups"]
