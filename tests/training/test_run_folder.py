"""A run's files are whole or absent."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from avplatform.base.files import write_json
from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import write_atomic
from avplatform.runs.folder import RunFolder


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "results.json"
    write_json(target, {"accuracy": 1.0})

    def fail(path):
        path.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(target, fail)
    assert json.loads(target.read_text()) == {"accuracy": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    def write(text):
        def inner(path):
            path.mkdir()
            (path / text).write_text(text)

        return inner

    write_atomic(tmp_path / "model", write("old"))
    write_atomic(tmp_path / "model", write("new"))
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["new"]


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UsageError, match="--resume"):
        RunFolder.create(str(tmp_path), name="x")
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_run_killed_in_its_first_file_does_not_block_its_folder(tmp_path):
    rest = tmp_path / ".config.yaml.partial-4711"
    rest.write_text("task: av")
    folder = RunFolder.create(str(tmp_path), name="x")
    folder.lock()
    assert not rest.exists()
    folder.unlock()


def test_what_a_killed_process_left_half_written_goes_when_the_run_goes_on(tmp_path):
    (tmp_path / ".model.partial-4711").mkdir()
    (tmp_path / ".model.partial-4711" / "model.safetensors").write_text("half")
    (tmp_path / ".results.json.partial-4711").write_text("{")
    (tmp_path / "config.yaml").write_text("task: avel")
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.lock()
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    (tmp_path / ".results.json.partial-4712").write_text("{")
    with pytest.raises(UsageError, match="another process is training"):
        second.lock()
    assert (tmp_path / ".results.json.partial-4712").exists()  # the other one is writing it
    threading.Timer(0.3, first.unlock).start()
    second.lock(wait=60)
    second.unlock()


@pytest.mark.parametrize(
    ("write", "go_on"),
    [
        (lambda folder: folder.write_config({"task": "avel"}), "go on with the same command"),
        (lambda folder: folder.write_environment({"torch": "2"}), "go on with --resume"),
    ],
)
def test_a_disk_that_is_full_from_the_start_is_said(tmp_path, monkeypatch, write, go_on):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_text", "write_bytes"):
        monkeypatch.setattr(Path, name, full)
    with pytest.raises(DataError, match=f"No space left on device.*{go_on}"):
        write(RunFolder(tmp_path))
    assert not list(tmp_path.iterdir())


def test_epochs_without_validation_are_made_again_too(tmp_path):
    folder = RunFolder(tmp_path)
    for event, step in (("epoch", 2), ("step", 3), ("step", 4), ("epoch_without_validation", 4)):
        folder.log({"event": event, "step": step})
    folder.rewind(4, validated=2)
    assert [(r["event"], r["step"]) for r in folder.records()] == [
        ("epoch", 2),
        ("step", 3),
        ("step", 4),
    ]


def test_a_cut_off_last_line_is_left_out_and_rewinding_drops_later_steps(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"event": "step", "step": step})
    with folder.metrics_file.open("a") as file:
        file.write('{"event": "st')
    assert [r["step"] for r in folder.records()] == [1, 2, 3]
    folder.rewind(2)
    assert [r["step"] for r in folder.records()] == [1, 2]


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_atomic(tmp_path / "new" / "a.txt", "caf\u00e9\n")
    write_atomic(tmp_path / "new" / "b", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"caf\xc3\xa9\n"
    assert (tmp_path / "new" / "b").read_bytes() == b"\x00\xff"
    assert len(list((tmp_path / "new").iterdir())) == 2
