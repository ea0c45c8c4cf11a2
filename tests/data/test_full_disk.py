"""A disk that fills while arrays are built ends in a clear error and leaves nothing half done."""

import subprocess
import sys

import pytest

from tests.data.stores import spec_of, write

CLIPS = 3000  # audio has 90 KB, the arrays of the split 260 KB
SMALL = "mount -t tmpfs -o size={size} tmpfs {folder}"
OPEN = """
import sys
from pathlib import Path
from avplatform.data import open_data
from avplatform.models.errors import DataError
try:
    print(len(open_data(sys.argv[1], task="avvp", cache_dir=Path(sys.argv[2])).split("train")))
except DataError as error:
    print(error)
print(sorted(path.name for path in Path(sys.argv[2]).rglob("*") if path.is_file()))
"""


def on_a_small_disk(size, folder, *command):
    """Run a command in namespaces where `folder` is its own disk; skip where not allowed."""
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mounted = SMALL.format(size=size, folder=folder)
    try:
        subprocess.run([*private, mounted], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    return subprocess.run(
        [*private, f'{mounted} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("size", ["64k", "160k"])  # full inside the first array, and after it
def test_arrays_that_do_not_fit_are_an_error_and_leave_nothing(tmp_path, size):
    store, cache = tmp_path / "store", tmp_path / "cache"
    write(store, spec_of(), {"train": CLIPS})
    cache.mkdir()
    done = on_a_small_disk(size, cache, sys.executable, "-c", OPEN, str(store), str(cache))
    assert done.returncode == 0, (
        done.returncode,
        done.stderr,
    )  # a write to a mapped file would end in SIGBUS
    said, left = done.stdout.splitlines()
    assert "cannot build the arrays of train" in said
    assert "No space left on device; free space or give another cache" in said
    assert left == "['.train.lock']"


def test_arrays_that_fit_are_built(tmp_path):
    store, cache = tmp_path / "store", tmp_path / "cache"
    write(store, spec_of(), {"train": CLIPS})
    cache.mkdir()
    done = on_a_small_disk("4m", cache, sys.executable, "-c", OPEN, str(store), str(cache))
    assert done.stdout.splitlines()[0] == str(CLIPS), done.stderr
