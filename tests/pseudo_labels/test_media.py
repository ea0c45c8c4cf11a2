"""Frames and waveforms from files: which are read, in what order, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from avplatform.models.errors import DataError
from avplatform.pseudo_labels.media import find_frames, find_waveform, read_frames, read_waveform
from tests.pseudo_labels.files import write_wav

VIDEO = "aaaaaaaaaaa"


def save_frames(folder, frames, name):
    folder.mkdir()
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(n))


def test_frames_are_ordered_by_the_numbers_in_their_names(tmp_path):
    save_frames(
        tmp_path / VIDEO, [np.full((4, 6, 3), n, np.uint8) for n in range(81)], "frame_{}.png"
    )
    (tmp_path / VIDEO / "notes.txt").write_text("")
    chosen = [int(file.stem.split("_")[1]) for file in find_frames(tmp_path, VIDEO)]
    assert chosen == [round(k * 80 / 9) for k in range(10)]


def test_a_folder_of_frames_and_an_array_of_them_are_the_same(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (80, 9, 16, 3), dtype=np.uint8)
    save_frames(tmp_path / VIDEO, frames, "{:08d}.png")
    from_images = read_frames(find_frames(tmp_path, VIDEO), size=8)
    np.save(tmp_path / f"{VIDEO}.npy", frames)
    from_array = read_frames(find_frames(tmp_path, VIDEO), size=8)
    assert (from_images == from_array).all()
    assert (
        from_images.shape == (10, 3, 8, 8)
        and from_images.min() > -0.001
        and from_images.max() < 1.001
    )


def test_frames_are_squeezed_and_nothing_is_cut_off(tmp_path):
    frame = np.zeros((20, 60, 3), np.uint8)
    frame[:, :30] = 255  # the left half
    np.save(tmp_path / f"{VIDEO}.npy", np.repeat(frame[None], 10, axis=0))
    square = read_frames(find_frames(tmp_path, VIDEO), size=10)[0, 0]
    assert (square[:, :4] > 0.999).all() and (square[:, 6:] < 0.001).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((80, 4, 4, 3), np.float32), r"is float32 \(80, 4, 4, 3\); frames are uint8"),
        (np.zeros((80, 4, 4), np.uint8), "frames are uint8"),
        (np.zeros((9, 4, 4, 3), np.uint8), "holds 9 frames; a clip needs at least 10"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(tmp_path, array, message):
    np.save(tmp_path / f"{VIDEO}.npy", array)
    with pytest.raises(DataError, match=message):
        read_frames(find_frames(tmp_path, VIDEO), size=8)


def test_missing_frames_and_waveforms_are_named(tmp_path):
    with pytest.raises(DataError, match=f"no folder of frames .*{VIDEO}"):
        find_frames(tmp_path, VIDEO)
    (tmp_path / VIDEO).mkdir()
    with pytest.raises(DataError, match="holds 0 frames"):
        find_frames(tmp_path, VIDEO)
    with pytest.raises(DataError, match=f"no file .*{VIDEO}.wav or .npy"):
        find_waveform(tmp_path, VIDEO)


@pytest.mark.parametrize(("width", "step"), [(1, 2**-7), (2, 2**-15), (3, 2**-23), (4, 2**-31)])
def test_pcm_of_every_width_gives_the_samples(tmp_path, width, step):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 50_000)
    write_wav(tmp_path / "x.wav", samples, width=width)
    read = read_waveform(tmp_path / "x.wav")
    assert read.dtype == np.float32 and len(read) == 50_000
    np.testing.assert_allclose(read, samples, atol=1.6 * step + 1e-7)


def test_channels_are_averaged(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (50_000, 2))
    write_wav(tmp_path / "x.wav", samples, channels=2)
    np.testing.assert_allclose(read_waveform(tmp_path / "x.wav"), samples.mean(axis=1), atol=1e-4)


def test_arrays_of_samples_are_scaled_by_their_type(tmp_path):
    np.save(tmp_path / "x.npy", np.full(48_000, 2**14, np.int16))
    assert (read_waveform(tmp_path / "x.npy") == 0.5).all()
    np.save(tmp_path / "x.npy", np.full(48_000, 0.25))
    assert (read_waveform(tmp_path / "x.npy") == 0.25).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full(48_000, 3000.0), "reaches 3000; float samples lie between -1 and 1"),
        (np.full(48_000, np.nan), "a NaN"),
        (np.zeros((2, 48_000)), "a waveform is float or int16"),
        (np.zeros(48_000, np.int64), "a waveform is float or int16"),
        (np.zeros(47_999), "less than a second"),
    ],
)
def test_arrays_that_are_no_waveform_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        read_waveform(tmp_path / "x.npy")


def test_wav_files_that_are_cut_off_empty_or_at_another_rate_are_refused(tmp_path):
    file = tmp_path / "x.wav"
    write_wav(file, np.zeros(50_000))
    whole = file.read_bytes()
    for content, message in (
        (whole[:60_000], "is cut off: 59956 bytes"),
        (whole[:20], "cannot read"),
        (b"", "it is cut off"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_waveform(file)
    write_wav(file, np.zeros(50_000), rate=16_000)
    with pytest.raises(DataError, match="is at 16000 Hz.*ffmpeg -i INPUT -ac 1 -ar 48000"):
        read_waveform(file)
