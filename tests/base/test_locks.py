"""A lock keeps other processes out, says who has it, and ends with its process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from avplatform.base.locks import Lock
from avplatform.models.errors import DataError
from tests.posix import needs_posix

HOLD = """
import sys, time
from pathlib import Path
from avplatform.base.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def busy(holder):
    return DataError(f"process {holder} has it")


@needs_posix
def test_another_process_is_refused_with_the_holders_id_until_it_is_killed(tmp_path):
    file = tmp_path / "folder" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match=f"process {holder.pid} has it"), Lock(file, busy):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with Lock(file, busy):
        assert file.read_text() == str(os.getpid())


def test_one_who_waits_gets_the_lock_when_it_is_given_up(tmp_path):
    first, second = Lock(tmp_path, busy), Lock(tmp_path, busy, wait=60)
    assert first.take()
    threading.Timer(0.2, first.release).start()
    begun = time.monotonic()
    assert second.take() and 0.1 < time.monotonic() - begun < 50
    second.release()


@needs_posix
def test_a_folder_is_locked_without_a_file_in_it_and_may_be_read_only(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with Lock(tmp_path, busy):
            with pytest.raises(DataError, match="process unknown has it"):
                Lock(tmp_path, busy).take()
            assert not list(tmp_path.iterdir())
    finally:
        tmp_path.chmod(0o755)


@needs_posix
def test_a_lock_file_that_was_deleted_keeps_nobody_out(tmp_path):
    file = tmp_path / ".lock"
    first, second, third = (Lock(file, busy) for _ in range(3))
    first.take()
    file.unlink()
    assert second.take()
    with pytest.raises(DataError, match="has it"):
        third.take()
    first.release()
    second.release()


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def refuse(descriptor, **options):
        raise OSError("no locks")

    monkeypatch.setattr("filelock.lock_descriptor", refuse)
    with Lock(tmp_path, busy) as lock, Lock(tmp_path, busy):
        assert not lock.take()


def test_the_module_is_there_where_the_system_has_no_fcntl(tmp_path):
    code = (
        "import sys, warnings; sys.modules['fcntl'] = None; warnings.simplefilter('ignore')\n"
        "from pathlib import Path\n"
        "from avplatform.base.locks import Lock\n"
        "print(Lock(Path(sys.argv[1]), lambda holder: SystemExit(holder)).take())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "False\n", done.stderr
