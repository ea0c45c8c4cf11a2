"""Whatever an item does to its process, it becomes one answer, and the next item is done."""

import os
import pickle
import sys
import time
from pathlib import Path

import pytest

from avplatform.base.places import StoppedError
from avplatform.models.errors import DataError, UsageError
from avplatform.scale.child import Child, check_shared
from avplatform.timeline.folders import Job
from tests.scale import works

if os.name != "posix":
    pytest.skip("needs POSIX: pipes that a child inherits", allow_module_level=True)


@pytest.fixture
def child():
    child = Child(pickle.dumps(works.begin), seconds=30)
    yield child
    child.close()


def item(kind, **more):
    return {"key": "1", "name": "one.mp4", "kind": kind, **more}


def test_one_process_does_all_items_and_an_error_of_an_item_is_an_answer(child):
    first, bad, last = (child.do(item(kind)) for kind in ("good", "bad", "good"))
    assert (first.status, bad.status, bad.text) == ("done", "bad", "cannot read it")
    assert first.text == last.text and not first.text.endswith(f" {os.getpid()}")
    assert first.seconds > 0


@pytest.mark.parametrize(
    ("kind", "reason"), [("usage", "cannot write there"), ("bug", "one.mp4: KeyError: 'lost'")]
)
def test_an_error_that_every_item_would_have_stops_the_work(child, kind, reason):
    answer = child.do(item(kind))
    assert (answer.status, answer.text) == ("stop", reason)


def test_an_item_that_ends_its_process_is_tried_twice_and_then_left_out(child):
    answer = child.do(item("crash"))
    assert answer.status == "bad" and "SIGSEGV" in answer.text and "2 times" in answer.text
    assert child.do(item("good")).status == "done"


def test_an_item_whose_process_is_killed_once_is_done(child, tmp_path):
    answer = child.do(item("crash once", seen=str(tmp_path / "seen")))
    assert answer.status == "done" and (tmp_path / "seen").exists()


def test_what_a_killed_process_leaves_in_its_temporary_folder_is_removed(child, tmp_path):
    seen = tmp_path / "seen"
    assert child.do(item("leave", seen=str(seen))).status == "bad"
    assert seen.read_text() and not Path(seen.read_text()).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_an_item_that_needs_more_memory_than_allowed_is_left_out():
    child = Child(pickle.dumps(works.begin), seconds=30, memory=1.0)
    answer = child.do(item("memory"))
    assert answer.status == "bad" and "needs more memory" in answer.text
    assert child.do(item("good")).status == "done"
    child.close()


def test_an_item_that_takes_too_long_is_left_out_and_its_process_ended():
    child = Child(pickle.dumps(works.begin), seconds=1)
    begun = time.monotonic()
    answer = child.do(item("slow"))
    assert answer.status == "bad" and "more than 1 s" in answer.text
    assert time.monotonic() - begun < 50
    child.close()


def test_a_worker_that_cannot_begin_stops_the_work():
    child = Child(pickle.dumps(works.begin_wrongly), seconds=30)
    answer = child.do(item("good"))
    assert (answer.status, answer.text) == ("stop", "the weights are missing")
    child.close()


def test_a_worker_whose_process_ends_before_it_can_work_stops_the_work_and_blames_no_item():
    child = Child(pickle.dumps(works.begin_and_die), seconds=30)
    answer = child.do(item("good"))
    assert answer.status == "stop"
    assert "cannot load its networks: its process was ended by SIGKILL" in answer.text
    child.close()


def test_a_node_with_another_version_stops_the_work():
    child = Child(pickle.dumps(works.begin), seconds=30, version="0.0.1")
    answer = child.do(item("good"))
    assert answer.status == "stop" and "the driver 0.0.1; install the same" in answer.text
    child.close()


def test_a_node_that_does_not_see_the_folder_of_the_driver_is_refused(tmp_path):
    check_shared(tmp_path)
    with pytest.raises(UsageError, match="give a folder that all nodes share"):
        check_shared(tmp_path / "missing")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (MemoryError(), "bad", "needs more memory than a worker has (MemoryError), 2 times"),
        (KeyError("lost"), "stop", "v.mp4: KeyError: 'lost'"),
        (StoppedError("s3://b cannot be reached"), "stop", "s3://b cannot be reached"),
        (DataError("v.mp4 is cut off"), "bad", "v.mp4 is cut off"),
    ],
)
def test_only_what_a_video_is_at_fault_for_is_told_of_a_video_to_predict(
    tmp_path, error, status, reason
):
    made = pickle.dumps(works.PredictFailing(tmp_path, error))
    child = Child(made, seconds=30)
    job = Job(key="1", video=tmp_path / "v.mp4", folder="v")
    answer = child.do({"key": "1", "name": "v.mp4", "job": job})
    child.close()
    assert answer.status == status and reason in answer.text
    assert not (tmp_path / ".done").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_ends_with_the_process_that_started_it(monkeypatch, tmp_path):
    mark = str(tmp_path)
    monkeypatch.setenv(works.MARK, mark)
    child = Child(pickle.dumps(works.begin), seconds=30)
    child.do(item("good"))
    assert len(works.processes(mark, "scale.child")) == 1
    child._process.stdin.close()  # as the system does when the starter is killed
    child._process.wait(30)
    assert works.processes(mark, "scale.child") == []
    child.close()
