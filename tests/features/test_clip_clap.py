"""CLIP and CLAP as feature extractors, with random weights at tiny widths.

The tests check the path, not what real weights would see.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from avplatform.features.extract import Extractor
from avplatform.features.media import read_frames, read_waveform
from avplatform.features.teachers import CLAPTeacher, CLIPTeacher
from avplatform.features.weights import PUBLISHED
from tests.features.clips import standard

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("clipclap")
    standard(place / "video.mp4")
    return place


@pytest.fixture(scope="module")
def features(place, tiny_teachers):
    extractor = Extractor("clip-clap", tiny_teachers)
    return extractor.clip(place / "video.mp4")


def test_frames_are_those_of_valor_and_vectors_have_length_1(place, features, tiny_teachers):
    ticks = [round(i * 79 / 9) for i in range(10)]
    pixels = read_frames(place / "video.mp4", (np.array(ticks) + 0.5) / 8 - 1e-6, 32)
    wanted = CLIPTeacher(tiny_teachers["clip"]).segment_features(
        pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    )
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert features.visual.shape == (10, 12) and np.allclose(features.visual, wanted, atol=1e-5)


def test_sound_is_cut_as_valor_cuts_it(place, features, tiny_teachers):
    samples = read_waveform(place / "video.mp4", 48_000)
    size = len(samples) // 10
    segments = np.stack([samples[round(i * len(samples) / 10) :][:size] for i in range(10)])
    wanted = CLAPTeacher(tiny_teachers["clap"]).segment_features(segments)
    assert features.audio.shape == (10, 12) and np.allclose(features.audio, wanted, atol=1e-4)
    assert np.abs(features.audio - np.median(features.audio, axis=0)).sum(1).argmax() == 4


def test_weights_are_known_by_their_values_and_no_path_of_this_machine_is_stored(tiny_teachers):
    made = Extractor("clip-clap", tiny_teachers).describe()["weights"]
    assert made["visual"]["model"] == "clip" and len(made["audio"]["sha256"]) == 64


def test_bf16_is_near_float32(place, features, tiny_teachers):
    found = Extractor("clip-clap", tiny_teachers, dtype=torch.bfloat16).clip(place / "video.mp4")
    assert (
        np.abs(found.visual - features.visual).max() < 0.05
        and np.abs(found.audio - features.audio).max() < 0.05
    )


def test_the_page_names_every_file_of_weights():
    page = (Path(__file__).resolve().parents[2] / "docs" / "features.md").read_text()
    assert [name for name, published in PUBLISHED.items() if published.files[0] not in page] == []
