"""Importing, training and predicting open no socket: there is no telemetry.

An audit hook of Python reports every socket and every look-up of a name, whichever library asks;
what a library's own C code would open is looked for among the open files at the end. Processes of
one run that work together do talk to each other, over gloo or NCCL, and are not examined here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journey import make_folder, travel

pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")

HOOK = """
import atexit, importlib.util, json, os, sys
asked = []

if importlib.util.find_spec("urllib3"):  # asks at its import whether IPv6 is there, by a socket
    import urllib3

def note(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        asked.append([event, *map(repr, args)])

def tell():
    links = Path("/proc/self/fd")
    for link in links.iterdir() if links.is_dir() else ():
        try:
            place = os.readlink(link)
        except OSError:
            continue
        if place.startswith("socket:"):
            asked.append(["open at the end", place])
    Path("asked.json").write_text(json.dumps(asked), encoding="utf-8")

sys.addaudithook(note)
atexit.register(tell)
"""


def asked(folder):
    return json.loads((folder / "asked.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("journey"))


def test_importing_training_and_predicting_open_no_socket(folder, small_stores):
    done = travel(folder, small_stores["avel"], before=HOOK)
    assert done.returncode == 0 and done.stdout.endswith("arrived\n"), done.stderr[-3000:]
    assert asked(folder) == []


@pytest.mark.parametrize("call", ["socket.socket()", "socket.getaddrinfo('localhost', 80)"])
def test_a_socket_would_be_noticed(tmp_path, call):
    code = f"from pathlib import Path\n{HOOK}\nimport socket\nopened = {call}\n"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert asked(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd (Linux)")
def test_a_socket_of_c_code_that_stays_open_would_be_noticed(tmp_path):
    code = (
        f"from pathlib import Path\n{HOOK}\nimport ctypes\n"
        "assert ctypes.CDLL(None).socket(2, 1, 0) > 0\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert [event for event, _ in asked(tmp_path)] == ["open at the end"]
