"""A long video needs no more memory than a short one, but for its features and scores."""

import json
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from avplatform.features import media
from avplatform.timeline.event import events_of
from avplatform.timeline.picture import draw
from avplatform.timeline.preview import MOST_PEAKS, RATE, outline, peaks_of
from avplatform.timeline.reading import read_features
from avplatform.timeline.timeline import Timeline

ROOT = Path(__file__).resolve().parent.parent.parent


class Recorded:
    """A stretch of features that says when it is forgotten."""

    def __init__(self, start, count):
        numbers = np.arange(start, start + count, dtype=np.float32)
        self.audio, self.visual, self.motion = numbers[:, None], numbers[:, None] * 2, None
        self.has_audio = self.has_video = True


class Extractor:
    """Makes as many segments as asked, and notes which of the earlier stretches still live."""

    def __init__(self, segments):
        self.segments, self.made, self.most = segments, [], 0

    def clip(self, path, start=0.0, seconds=None):
        self.most = max(self.most, sum(made() is not None for made in self.made))
        count = self.segments - int(start) if seconds is None else int(seconds)
        part = Recorded(start, count)
        self.made.append(weakref.ref(part))
        return part


@pytest.mark.parametrize("segments", [7, 60, 119, 120, 601])
def test_the_parts_of_a_long_video_are_joined_and_forgotten(segments):
    extractor = Extractor(segments)
    found, present = read_features(extractor, "x.mp4", duration=float(segments))
    assert found.audio[:, 0].tolist() == list(range(segments))
    assert found.visual[:, 0].tolist() == list(range(0, 2 * segments, 2))
    assert present == {"audio": True, "visual": True}
    assert extractor.most <= 1 and len(extractor.made) == max(1, segments // 60)


def test_an_extractor_may_make_more_segments_than_the_file_declares():
    found, _ = read_features(Extractor(500), "x.mp4", duration=61.0)
    assert found.audio[:, 0].tolist() == list(range(500))


def sound(seconds, loud_at):
    """Stand in for `read_waveform`: quiet sound with one loud second."""

    def read(path, rate, *, start=0.0, seconds=None, limits=None):
        at = np.arange(round(start * rate), min(round((start + seconds) * rate), total * rate))
        return np.where(at // rate == loud_at, 0.5, 0.01).astype(np.float32)

    total = seconds
    return read


@pytest.mark.parametrize("seconds", [5, 61, 130, 601])
def test_the_outline_of_a_long_sound_is_that_of_the_whole(seconds, monkeypatch):
    monkeypatch.setattr(media, "read_waveform", sound(seconds, seconds // 2))
    found = outline("x.mp4", float(seconds))
    whole = sound(seconds, seconds // 2)("x.mp4", RATE, seconds=seconds)
    assert found == peaks_of(whole, round(max(1 / 40, seconds / MOST_PEAKS) * RATE))


def test_the_outline_of_an_hour_holds_two_minutes_of_sound(monkeypatch):
    monkeypatch.setattr(media, "read_waveform", sound(3600, 1800))
    tracemalloc.start()
    try:
        assert len(outline("x.mp4", 3600.0)) <= MOST_PEAKS + 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20  # an hour of sound has 110 MiB


def test_a_picture_has_one_artist_per_label_however_many_events():
    labels, seconds = ["siren", "dog"], 1000
    maps = np.arange(2 * seconds).reshape(seconds, 2) % 4 < 2  # an event in every other second
    found, scores = {"audio": maps}, {"audio": maps.astype(float)}
    events = events_of(found, scores, labels, duration=float(seconds))
    timeline = Timeline(video="x.mp4", duration=float(seconds), model="m", task="avvp",
                        decoder="leap", labels=labels, events=events, found=found,
                        scores=scores)  # fmt: skip
    assert len(events) == 1000
    (axes,) = draw(timeline).axes
    assert len(axes.collections) == 2
    assert sum(len(bars.get_paths()) for bars in axes.collections) == 1000


@pytest.mark.slow
def test_predict_takes_no_more_memory_for_five_minutes_than_for_two(tmp_path):
    command = ["-m", "benchmarks.growth", "video", "--sizes", "120", "300", "--out", str(tmp_path)]
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
    found = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["video"]
    assert found["300"]["predict"] > found["120"]["predict"]
    # Both fill the batches of the networks and read whole minutes of sound.
    assert found["300"]["MiB in all"] - found["120"]["MiB in all"] < 60
