"""Damaged and hostile files: a result or one sentence, never a crash, a hang or much memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avplatform.features.media import Limits, probe, read_frames, read_waveform
from avplatform.models.errors import DataError
from tests.features.clips import bits_of, render, standard

resource = pytest.importorskip("resource", reason="limits memory as POSIX systems can")

CONTEXT = multiprocessing.get_context("spawn")
SECONDS = 60  # for 30 files; a good one takes 0.05
MEMORY = 3 * 2**30  # of addresses, with torch and FFmpeg loaded
LIMITS = Limits(max_seconds=60, max_pixels=2_000_000)


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """A file in which something was cut, overwritten, repeated, left out or exchanged."""
    out, kind = bytearray(data), int(generator.integers(6))
    size = len(out)
    at, length = int(generator.integers(size)), int(generator.integers(1, 2000))
    if kind == 0:
        return bytes(out[:at])
    if kind == 1:
        for place in generator.integers(size, size=int(generator.integers(1, 40))):
            out[place] = int(generator.integers(256))
    elif kind == 2:
        out[at : at + length] = generator.bytes(length)
    elif kind == 3:
        del out[at : at + length]
    elif kind == 4:
        out[at:at] = out[at : at + length] * int(generator.integers(1, 20))
    else:  # the fields of a header: large numbers where sizes and counts stand
        head = (
            generator.integers(min(size, 1500))
            if generator.integers(2)
            else size - 1 - generator.integers(min(size, 1500))
        )
        out[int(head) : int(head) + 4] = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"][
            int(generator.integers(3))
        ]
    return bytes(out)


def try_files(files: list[str], memory: int, answers: Any) -> None:
    """Read every file as extraction does, with bounded memory; send what became of each."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for file in files:
        try:
            info = probe(file, limits=LIMITS)
            if info.has_video:
                frames = read_frames(
                    file, np.arange(0.0, min(info.duration, 10.0), 0.5), 32, limits=LIMITS
                )
                assert frames.dtype == np.uint8
            if info.has_audio:
                sound = read_waveform(file, 16000, limits=LIMITS)
                assert np.isfinite(sound).all() and len(sound) <= 61 * 16000
            answers.send((file, "good"))
        except DataError as error:
            answers.send(
                (
                    file,
                    "refused"
                    if Path(file).name in str(error) and "\n" not in str(error)
                    else f"said: {error}",
                )
            )
        except BaseException as error:
            answers.send((file, f"{type(error).__name__}: {error}"))
    answers.send(None)


def outcome(files: list[Path], memory: int = MEMORY) -> dict[str, str]:
    """What became of files, in a process of its own; fail if it hangs or dies."""
    ours, theirs = CONTEXT.Pipe()
    worker = CONTEXT.Process(target=try_files, args=([str(file) for file in files], memory, theirs))
    worker.start()
    theirs.close()
    found: dict[str, str] = {}
    try:
        while ours.poll(SECONDS):
            answer = ours.recv()
            if answer is None:
                return found
            found[Path(answer[0]).name] = answer[1]
        raise AssertionError(
            f"no answer for {SECONDS} s after {len(found)} files: {files[len(found)]}"
        )
    except EOFError:
        raise AssertionError(f"the process died at {files[len(found)]}") from None
    finally:
        worker.kill() if worker.is_alive() else None
        worker.join()


def check_mutants(folder: Path, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    originals = [
        standard(folder / "whole.mp4", seconds=3, beep_at=1, flash_at=1),
        render(
            folder / "whole.mkv",
            pictures=[bits_of(n) for n in range(50)],
            sound=np.zeros(44_100, np.float32),
        ),
        render(
            folder / "whole.avi",
            pictures=[bits_of(n) for n in range(50)],
            sound=np.ones(44_100, np.float32) * 0.1,
        ),
    ]
    files = []
    for index in range(count):
        original = originals[index % len(originals)]
        files.append(folder / f"bad{index:03d}{original.suffix}")
        files[-1].write_bytes(damage(original.read_bytes(), generator))
    found = outcome([*originals, *files])
    assert [found.pop(file.name) for file in originals] == ["good"] * 3
    assert set(found.values()) <= {"good", "refused"}, {
        name: text for name, text in found.items() if len(text) > 7
    }
    refused = sum(text == "refused" for text in found.values())
    assert 0.1 * count < refused < count  # some damage is beyond use, some can be read over


def test_30_damaged_files_are_read_or_refused(tmp_path):
    check_mutants(tmp_path, 30, seed=0)


@pytest.mark.slow
def test_300_damaged_files_are_read_or_refused(tmp_path):
    check_mutants(tmp_path, 300, seed=1)


def far_apart(path: Path) -> None:
    """Two pictures half an hour apart."""
    render(path, pictures=[bits_of(0)] * 2, stamps=[0, 1_800_000])


def late_sound(path: Path) -> None:
    """A sound that begins half an hour after the picture must not be filled up with silence."""
    render(
        path,
        pictures=[bits_of(0)],
        sound=np.ones(4096, np.float32),
        sound_codec="pcm_s16le",
        sound_from=1800.0,
    )


def large_picture(path: Path) -> None:
    """A picture of 12 million pixels, where 2 million are allowed."""
    render(path, pictures=[np.zeros((3000, 4000, 3), np.uint8)])


def many_pictures(path: Path) -> None:
    """1,500 pictures in one second."""
    render(path, pictures=[np.zeros((16, 16, 3), np.uint8)] * 1500, fps=1500)


@pytest.mark.parametrize("make", [far_apart, late_sound, large_picture])
def test_files_that_ask_for_too_much_are_refused(tmp_path, make: Callable[[Path], None]):
    make(tmp_path / "hostile.mkv")
    assert outcome([tmp_path / "hostile.mkv"]) == {"hostile.mkv": "refused"}


def test_frames_beyond_the_limit_are_not_decoded(tmp_path):
    many_pictures(tmp_path / "many.mkv")
    with pytest.raises(DataError, match="more than"):
        read_frames(tmp_path / "many.mkv", [0.99], 8, limits=Limits(max_seconds=2, max_fps=1))
