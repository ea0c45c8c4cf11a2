"""Check the material: `python -m examples.real_media.check --cache CACHE --clips RUNS/clips`.

In the finished files, every second in which an event is heard must be louder than every second in
which none is. No training recording may be a test recording under another name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from avplatform.data.adapters.llp.annotations import SEGMENTS
from avplatform.models.errors import AVError, DataError
from examples.real_media.compose import PLAN_FILE, clip_file
from examples.real_media.material import RATE, decode_sound
from examples.real_media.plan import Plan
from examples.real_media.sources import CLASSES, content

MANY = 10  # recordings of a class from which on they are not compared: spoken words


def loudness(clips: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the root mean squares of the decoded seconds with an audible event, and of all others.

    Raises:
        DataError: the folder holds no plan.
    """
    file = clips / PLAN_FILE
    if not file.is_file():
        raise DataError(
            f"no {PLAN_FILE} in {clips}; give a folder that examples.real_media.compose wrote"
        )
    heard, other = [], []
    for clip in Plan.from_json(file.read_text(encoding="utf-8")).clips:
        with av.open(str(clip_file(clips, clip.name)), "r") as container:
            samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        samples = np.pad(samples, (0, SEGMENTS * RATE))[: SEGMENTS * RATE].astype(np.float64)
        levels = np.sqrt((samples.reshape(SEGMENTS, RATE) ** 2).mean(axis=1))
        on = {
            second
            for e in clip.events
            if e.stream == "audio"
            for second in range(e.onset, e.offset)
        }
        heard += [levels[second] for second in sorted(on)]
        other += [levels[second] for second in range(SEGMENTS) if second not in on]
    return np.array(heard), np.array(other)


def likeness(cache: Path) -> Iterator[tuple[float, str, str]]:
    """Yield the correlation of every training recording with every test recording.

    It is the highest one over all shifts.
    """
    for train, test in _pairs(cache):
        (one, first), (two, second) = train, test
        length = len(one) + len(two)
        spectrum = np.fft.rfft(one, length) * np.conj(np.fft.rfft(two, length))
        yield float(np.abs(np.fft.irfft(spectrum, length)).max()), first, second


def _pairs(cache: Path) -> Iterator[tuple[tuple[np.ndarray, str], tuple[np.ndarray, str]]]:
    sides: dict[str, list[tuple[np.ndarray, str]]] = {"sounds": [], "test_sounds": []}
    for sources in CLASSES.values():
        for side, found in sides.items():
            files = [file for source in getattr(sources, side) for file in content(cache, source)]
            for name, data in files if len(files) <= MANY else []:
                sound = decode_sound(name, data)[:: RATE // 8_000].astype(np.float64)
                found.append((sound / np.linalg.norm(sound), name))
    for train in sides["sounds"]:
        for test in sides["test_sounds"]:
            yield train, test


def main() -> int:
    """Check by the command line; 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    args = parser.parse_args()
    try:
        heard, other = loudness(args.clips)
        best, first, second = max(likeness(args.cache))
    except AVError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{len(heard)} seconds with an event that is heard: "
        f"the quietest has a level of {heard.min():.3f}"
    )
    print(f"{len(other)} seconds without: the loudest has {other.max():.3f}")
    print(f"most alike of training and test: {first} and {second}, correlation {best:.2f}")
    return 0 if heard.min() > other.max() and best < 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
