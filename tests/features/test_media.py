"""Frames and waveforms are those of the right times, and files that are not media are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avplatform.features.container import Opened, opened
from avplatform.features.media import (
    FrameSize,
    Limits,
    Spent,
    iter_frames,
    probe,
    read_frames,
    read_waveform,
)
from avplatform.features.sampling import count_segments, count_ticks, frame_times, tick_times
from avplatform.models.errors import DataError, UsageError
from tests.features.clips import RATE, beep, bits_of, number_in, render, standard, turn


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Ten seconds at 29.97 frames a second; every picture says its number."""
    rate = Fraction(30000, 1001)
    pictures = [bits_of(index) for index in range(300)]
    return render(
        tmp_path_factory.mktemp("media") / "numbered.mp4",
        pictures=pictures,
        fps=rate,
        sound=beep(10, 4, 5),
    )


def numbers(path, times, size=(96, 128)):
    return [number_in(picture) for picture in read_frames(path, times, size)]


def test_a_file_says_what_it_is(numbered):
    info = probe(numbered)
    assert (
        info.has_audio
        and info.has_video
        and (info.width, info.height, info.rotation) == (128, 96, 0)
    )
    assert info.duration == pytest.approx(10.0, abs=0.1) and info.fps == pytest.approx(
        29.97, abs=0.01
    )
    assert info.audio_rate == 44100 and info.video_codec == "mpeg4" and info.audio_codec == "aac"


def test_a_moments_frame_is_the_last_that_begins_before_it(numbered):
    step = 1001 / 30000
    times = [0.0, step - 0.001, step + 0.001, 5.0, 200 * step + 0.001, 9.99, 60.0]
    assert numbers(numbered, times) == [0, 0, 1, 149, 200, 299, 299]


def test_times_may_come_in_any_order_and_repeat(numbered):
    assert numbers(numbered, [3.0, 1.0, 3.0, 0.5]) == [89, 29, 89, 14]


def test_frames_far_in_are_the_same_with_and_without_jumping_there(numbered):
    times = np.array([7.1, 8.4, 9.7])
    whole = read_frames(numbered, [0.0, *times], (96, 128))[1:]
    assert (read_frames(numbered, times, (96, 128)) == whole).all()


def test_ticks_are_the_frames_that_ffmpeg_writes_at_8_a_second(numbered):
    written = []
    with av.open(str(numbered)) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        rate, sink = graph.add("fps", "fps=8"), graph.add("buffersink")
        source.link_to(rate), rate.link_to(sink)
        graph.configure()
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    written.append(number_in(graph.pull().to_ndarray(format="rgb24")))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    assert len(written) == count_ticks(300 * 1001 / 30000, 8) == 80
    assert numbers(numbered, tick_times(np.arange(80), 8)) == written


@pytest.mark.parametrize("seconds, ticks", [(10.0, 80), (9.6, 77), (10.25, 82)])
def test_frames_of_segments_follow_the_published_choice(seconds, ticks):
    pytest.importorskip("torch")
    times = frame_times(seconds, 10, fps=8, per_segment=8)
    chosen = [round(i * (ticks - 1) / 79) for i in range(80)]
    assert np.allclose(times, (np.array(chosen) + 0.5) / 8, atol=1e-5)


def test_a_whole_number_of_seconds_keeps_frames_in_their_second():
    pytest.importorskip("torch")
    for fps, per_segment in ((8, 8), (16, 16)):
        times = frame_times(30.0, 30, fps=fps, per_segment=per_segment)
        assert (np.floor(times) == np.repeat(np.arange(30), per_segment)).all()


@pytest.mark.parametrize(
    "seconds, segments", [(0.1, 1), (0.6, 1), (1.5, 2), (9.6, 10), (10.4, 10), (61.2, 61)]
)
def test_segments_are_whole_seconds(seconds, segments):
    assert count_segments(seconds) == segments


def test_variable_frame_rates_are_read_by_time_stamp(tmp_path):
    stamps = [0, 40, 80, 1000, 1500, 1520, 4000, 6000]
    path = render(tmp_path / "varying.mkv", pictures=[bits_of(n) for n in range(8)], stamps=stamps)
    assert numbers(path, [0.05, 0.5, 1.2, 1.51, 3.99, 4.01, 5.9]) == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_turned_as_players_show_them(tmp_path, degrees):
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:32, :64] = (255, 0, 0)  # top left
    path = turn(render(tmp_path / "turned.mp4", pictures=[picture] * 5), degrees)
    shown = np.rot90(picture, -degrees // 90)
    info = probe(path)
    assert (info.height, info.width) == shown.shape[:2]
    frame = read_frames(path, [0.0], shown.shape[:2])[0]
    assert np.abs(frame.astype(int) - shown).mean() < 12


def test_a_middle_is_cut_out_without_stretching(tmp_path):
    picture = np.zeros((96, 192, 3), np.uint8)
    picture[24:72, 72:120] = 255  # a square in the middle
    path = render(tmp_path / "wide.mp4", pictures=[picture] * 3)
    cut = read_frames(path, [0.0], 48, short_side=48)[0]
    white = cut.mean(-1) > 127
    assert (
        cut.shape == (48, 48, 3)
        and abs(int(white.any(0).sum()) - 24) <= 1
        and abs(int(white.any(1).sum()) - 24) <= 1
    )
    stretched = read_frames(path, [0.0], 48)[0].mean(-1) > 127
    assert abs(int(stretched.any(0).sum()) - 12) <= 1


def test_one_pass_gives_several_sizes(numbered):
    sizes = [FrameSize(height=96, width=128), FrameSize(height=30, width=40)]
    pairs = list(iter_frames(numbered, np.array([1.0, 2.0]), sizes))
    assert [[picture.shape for picture in pair] for pair in pairs] == [
        [(96, 128, 3), (30, 40, 3)]
    ] * 2
    assert (
        [number_in(pair[0]) for pair in pairs] == [number_in(pair[1]) for pair in pairs] == [29, 59]
    )


def test_a_beep_is_heard_in_its_second(numbered):
    sound = read_waveform(numbered, 16000)
    assert sound.dtype == np.float32 and len(sound) == pytest.approx(160_000, abs=2000)
    level = np.sqrt((sound[:160_000].reshape(10, -1) ** 2).mean(1))
    assert (
        level[4] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
        and np.delete(level, 4).max() < 0.05 * level[4]
    )
    onset = int((np.abs(sound) > 0.1).argmax()) / 16000
    assert onset == pytest.approx(4.0, abs=0.03)


def test_a_part_of_a_sound_is_the_same_as_in_the_whole(numbered):
    whole = read_waveform(numbered, 16000)
    part = read_waveform(numbered, 16000, start=4.5, seconds=2.0)
    # Where FFmpeg finds a key frame depends on its version; from there positions are rounded to a
    # sample of the result.
    half_a_sample = 0.5 * np.pi * 1000 / 16000  # of a tone of 1 kHz and 0.5
    assert (
        len(part) == 32000
        and np.abs(part[100:-100] - whole[72000:104000][100:-100]).max() < 1.05 * half_a_sample
    )


def test_channels_are_averaged(tmp_path):
    path = render(
        tmp_path / "stereo.mkv", sound=beep(2, 0, 2), sound_codec="pcm_f32le", layout="stereo"
    )
    sound = read_waveform(path, 44100)
    assert np.abs(sound - beep(2, 0, 2)).max() < 1e-4


@pytest.mark.parametrize("channels", [3, 6, 8, 9, 16])
def test_sound_of_many_channels_is_their_mean(tmp_path, channels):
    """In a process of its own: what went wrong here ended in a segmentation fault."""
    levels = np.arange(channels) * 1000
    with wave.open(str(tmp_path / "many.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.tile(levels, 8000).astype("<i2").tobytes())
    code = (
        "import sys; from avplatform.features.media import read_waveform; "
        "print(read_waveform(sys.argv[1], 8000).mean())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "many.wav"], capture_output=True, text=True
    )
    assert done.returncode == 0 and float(done.stdout) == pytest.approx(
        levels.mean() / 32768, rel=1e-3
    ), done.stderr


def test_sound_that_begins_late_is_silent_before(tmp_path):
    path = render(
        tmp_path / "late.mkv",
        pictures=[bits_of(0)] * 75,
        sound=beep(1, 0, 1),
        sound_codec="pcm_s16le",
        sound_from=2.0,
    )
    sound = read_waveform(path, 8000)
    assert np.abs(sound[:15900]).max() < 1e-3 and np.abs(sound[16100:24000]).max() > 0.4


def test_a_missing_stream_is_named(tmp_path):
    silent = render(tmp_path / "silent.mp4", pictures=[bits_of(0)] * 5)
    blind = render(tmp_path / "blind.m4a", sound=beep(1, 0, 1))
    assert not probe(silent).has_audio and not probe(blind).has_video
    with pytest.raises(DataError, match="silent.mp4 has no audio"):
        read_waveform(silent, 16000)
    with pytest.raises(DataError, match="blind.m4a has no video"):
        read_frames(blind, [0.0], 32)


def make_bad(tmp_path):
    """Files that are no media, by what is to be said of them."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "picture.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "picture.mp4", format="jpeg")
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 50)
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
    whole = standard(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[:40])
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return {
        "picture.png": "no video or sound", "picture.mp4": "no video or sound",
        "text.mp4": "cannot read", "list.m3u8": "", "list.mp4": "", "empty.mp4": "is empty",
        "folder.mp4": "is no file", "pipe.mp4": "is no file", "head.mp4": "cannot read",
        "cut.mp4": "cannot read", "absent.mp4": "no file", "nul\0.mp4": "",
    }  # fmt: skip


def test_what_is_no_media_is_refused_with_its_name(tmp_path):
    for name, text in make_bad(tmp_path).items():
        with pytest.raises(DataError) as caught:
            probe(tmp_path / name)
        assert text in str(caught.value) and (name in str(caught.value) or "\0" in name), str(
            caught.value
        )


def test_a_file_that_ends_early_is_said_to_be_cut_off(tmp_path):
    path = render(tmp_path / "whole.mkv", pictures=[bits_of(n) for n in range(250)])
    data = path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 3])
    assert read_frames(cut, [0.1], 32).shape == (1, 32, 32, 3)
    with pytest.raises(
        DataError,
        match=r"cut.mkv is cut off: it says 10.0 s, but its pictures end after [234]\.\d s",
    ):
        read_frames(cut, [0.1, 9.0], 32)


@pytest.mark.parametrize(
    "limits, text",
    [
        ({"max_seconds": 5.0}, "lasts 10 s; the limit is 5 s"),
        ({"max_pixels": 1000}, "pictures of 128 x 96"), ({"max_audio_rate": 8000}, "44100 Hz"),
    ],
)  # fmt: skip
def test_what_is_beyond_a_limit_is_refused(numbered, limits, text):
    with pytest.raises(DataError, match=text):
        probe(numbered, limits=Limits(**limits))


def test_pictures_that_become_larger_on_the_way_are_not_decoded(tmp_path):
    small = render(
        tmp_path / "small.ts", pictures=[np.zeros((32, 64, 3), np.uint8)] * 50, codec="mpeg2video"
    )
    large = render(
        tmp_path / "large.ts", pictures=[np.zeros((480, 640, 3), np.uint8)] * 50, codec="mpeg2video"
    )
    path = tmp_path / "growing.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    assert read_frames(path, [0.5], 16, limits=Limits(max_pixels=100_000)).shape == (1, 16, 16, 3)
    assert read_frames(path, np.arange(0, 4, 0.5), 16).shape == (8, 16, 16, 3)
    with pytest.raises(DataError, match="packets of its picture cannot be decoded"):
        read_frames(path, np.arange(0, 4, 0.5), 16, limits=Limits(max_pixels=100_000))


def test_a_sound_longer_than_the_limit_is_not_held(tmp_path):
    path = render(
        tmp_path / "long.aac", sound=beep(20, 0, 1)
    )  # its container does not know its length
    with pytest.raises(DataError, match="more than 5 s|the limit is 5 s"):
        read_waveform(path, 8000, limits=Limits(max_seconds=5.0))


def test_limits_and_times_are_checked(numbered):
    with pytest.raises(UsageError, match="max_seconds"):
        Limits(max_seconds=0)
    with pytest.raises(UsageError, match="ascending order"):
        list(iter_frames(numbered, np.array([2.0, 1.0]), [FrameSize(height=8, width=8)]))
    with pytest.raises(UsageError, match="short side of 10"):
        FrameSize(height=20, width=20, short_side=10)


def test_a_users_error_inside_an_open_file_stays_one(numbered):
    with pytest.raises(UsageError, match="mine"), opened(numbered):
        raise UsageError("mine")


def test_a_recording_that_declares_no_length_is_measured(tmp_path):
    source = standard(tmp_path / "whole.mp4", seconds=6)
    with (
        av.open(str(source)) as whole,
        av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"}) as out,
    ):
        streams = {stream.index: out.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    with opened(tmp_path / "live.mkv") as file:
        assert file.duration == 0.0
    assert probe(tmp_path / "live.mkv").duration == pytest.approx(6.0, abs=0.1)
    raw = render(tmp_path / "raw.m4v", pictures=[bits_of(3)] * 50)  # no time stamps either
    assert probe(raw).duration == pytest.approx(2.0, abs=0.05)
    with pytest.raises(DataError, match="lasts 6 s; the limit is 5 s"):
        probe(tmp_path / "live.mkv", limits=Limits(max_seconds=5))


@pytest.mark.parametrize("name", ["named.mkv", "named.mp4"])
def test_metadata_that_is_no_utf8_is_no_reason_to_refuse_a_file(tmp_path, name):
    path = render(
        tmp_path / "plain.mkv",
        pictures=[bits_of(index) for index in range(50)],
        sound=beep(2, 0, 1),
    )
    with av.open(str(path)) as plain, av.open(str(tmp_path / name), "w") as out:
        out.metadata["title"] = "TITLE---"
        streams = {stream.index: out.add_stream_from_template(stream) for stream in plain.streams}
        for stream in streams.values():
            stream.metadata["language"], stream.metadata["title"] = "eng", "STREAM--"
        for packet in plain.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data = (tmp_path / name).read_bytes()
    bad = data.replace(b"TITLE---", b"caf\xe9 \xff\xfe\x80").replace(
        b"STREAM--", b"\xc3\xe9\xed\xa0\x80\xff\xfe\xf8"
    )
    assert bad != data
    (tmp_path / name).write_bytes(bad)
    assert probe(tmp_path / name).duration == pytest.approx(2.0, abs=0.1)
    assert (
        numbers(tmp_path / name, [1.5]) == [37]
        and len(read_waveform(tmp_path / name, 8000)) >= 16_000
    )


def test_pictures_that_end_before_the_sound_are_not_a_file_cut_off(tmp_path):
    for name in ("long.mkv", "long.mp4"):
        file = render(
            tmp_path / name, pictures=[bits_of(index) for index in range(50)], sound=beep(8, 4, 5)
        )
        assert numbers(file, [0.5, 7.5]) == [12, 49]


def test_a_frame_of_sound_at_an_absurdly_low_rate_is_refused_before_it_is_resampled(tmp_path):
    with av.open(str(tmp_path / "slow.mkv"), "w", options={"live": "1"}) as out:
        stream = out.add_stream("pcm_s16le", rate=20, layout="7.1")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 480_000), np.int16), format="s16", layout="7.1"
        )
        frame.sample_rate, frame.pts = 20, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(DataError, match="lasts 3,000 s"):
        read_waveform(tmp_path / "slow.mkv", 16_000, seconds=10.0)


def late(path: Path, sound_codec: str = "flac") -> Path:
    """Three seconds, the last with a beep and another picture; time stamps begin at 100 s."""
    fps, first = 10, 100
    pictures = [bits_of(10 * (index >= 2 * fps)) for index in range(3 * fps)]
    stamps = [1000 * first + 100 * index for index in range(3 * fps)]
    return render(
        path,
        pictures=pictures,
        stamps=stamps,
        sound=beep(3, 2, 3),
        sound_codec=sound_codec,
        sound_from=float(first),
    )


@pytest.mark.parametrize(
    "name, codec", [("late.mkv", "flac"), ("late.nut", "aac"), ("late.mp4", "aac")]
)
def test_time_stamps_may_begin_anywhere(tmp_path, name, codec):
    path = late(tmp_path / name, codec)
    assert probe(path).duration == pytest.approx(3.0, abs=0.15)
    assert numbers(path, [0.5, 1.9, 2.5]) == [0, 0, 10]
    loud = [np.abs(read_waveform(path, 8000, start=float(n), seconds=1.0)).mean() for n in range(3)]
    assert loud[2] > 10 * max(loud[:2])


def test_the_length_of_raw_sound_is_measured_and_not_guessed_from_its_beginning(tmp_path):
    loud = (
        np.random.default_rng(0).normal(0, 0.3, RATE * 8).astype(np.float32)
    )  # needs far more bits than the silence before
    path = render(
        tmp_path / "raw.aac", sound=np.concatenate([np.zeros(RATE * 8, np.float32), loud])
    )
    assert probe(path).duration == pytest.approx(16.0, abs=0.1)


@pytest.mark.parametrize(
    "name, codec", [("raw.h264", "libx264"), ("raw.m1v", "mpeg1video"), ("raw.m4v", "mpeg4")]
)
def test_raw_pictures_are_measured_and_found_where_they_are(tmp_path, name, codec):
    """In the first file FFmpeg cannot seek; for the second it declares a wrong length.

    FFmpeg has used up the first file when it says so.
    """
    path = render(
        tmp_path / name, pictures=[bits_of(2 ** (index // 25)) for index in range(250)], codec=codec
    )
    assert probe(path).duration == pytest.approx(10.0, abs=0.1)
    assert (
        numbers(path, [1.5]) == [2]
        and numbers(path, [6.5]) == [64]
        and numbers(path, [8.5, 9.5]) == [256, 512]
    )


@pytest.mark.parametrize("shape", [(2, 400), (400, 2)])
def test_the_middle_of_a_very_narrow_picture_is_cut_out(tmp_path, shape):
    picture = np.zeros((*shape, 3), np.uint8)
    middle = max(shape) // 2
    part = (
        (slice(None), slice(middle - 1, middle + 1))
        if shape[1] > shape[0]
        else (slice(middle - 1, middle + 1),)
    )
    picture[part] = 255
    path = render(tmp_path / "narrow.mkv", pictures=[picture] * 3, codec="ffv1", pix_fmt="bgr0")
    cut = read_frames(path, [0.0], 48, short_side=48)[0]
    assert cut.shape == (48, 48, 3) and cut[20:28, 20:28].min() > 200


def test_pictures_beyond_all_pixels_that_a_file_may_have_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    path = render(
        tmp_path / "much.mp4", pictures=[np.zeros((96, 128, 3), np.uint8)] * 100
    )  # 1.2 million pixels
    decoded = []
    monkeypatch.setattr(Opened, "frames", lambda *_: decoded.append(1) or iter(()))
    with pytest.raises(
        DataError,
        match=r"100 pictures of 128 x 96, together 0.00123 gigapixels; "
        r"the limit is 0.001 \(--max-gig",
    ):
        read_frames(path, [0.5], 8, limits=Limits(max_gigapixels=0.001))
    assert not decoded


def test_what_the_parts_of_a_file_cost_is_counted_together(tmp_path):
    path = render(
        tmp_path / "live.mkv", pictures=[np.zeros((96, 128, 3), np.uint8)] * 75
    )  # 0.9 million pixels
    limits, spent, size = Limits(max_gigapixels=0.001), Spent(), [FrameSize(height=8, width=8)]
    for _ in range(4):
        list(iter_frames(path, np.array([2.9]), size, limits=limits, spent=spent))
    with pytest.raises(
        DataError, match="gigapixels of decoding so far, over 4 times the limit of 0.001"
    ):
        list(iter_frames(path, np.array([2.9]), size, limits=limits, spent=spent))


def test_sound_that_lasts_longer_than_its_time_stamps_say_is_refused(tmp_path):
    with av.open(str(tmp_path / "still.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(
                np.ones((1, 80_000), np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, 0
            out.mux(stream.encode(frame))
    with pytest.raises(DataError, match="which its time stamps deny"):
        read_waveform(tmp_path / "still.mkv", 8000, seconds=11.0, limits=Limits(max_seconds=20))


def test_a_sound_file_that_ends_early_is_said_to_be_cut_off(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 10).astype(np.float32)
    whole = render(tmp_path / "whole.flac", sound=noise, sound_codec="flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    assert len(read_waveform(tmp_path / "cut.flac", 8000, seconds=4.0)) == 32_000
    for seconds in (10.0, None):
        with pytest.raises(
            DataError, match=r"is cut off: it says 10.0 s, but its sound ends after [4-7]\.\d s"
        ):
            read_waveform(tmp_path / "cut.flac", 8000, seconds=seconds)
    with pytest.raises(DataError, match="is cut off|is damaged"):
        read_waveform(tmp_path / "cut.flac", 8000, start=7.0, seconds=2.0)


def test_the_length_of_an_mp3_is_the_declared_one_unless_its_packets_are_far_from_it(tmp_path):
    path = render(tmp_path / "whole.mp3", sound=beep(10, 4, 5), sound_codec="mp3")
    padding = (
        0.0 if av.library_versions["libavformat"] >= (62,) else 0.031
    )  # which FFmpeg before 8 counts too
    assert probe(path).duration == pytest.approx(10.0 + padding, abs=0.001)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert probe(path).duration == pytest.approx(5.0, abs=0.5)


def declared_only(path, *, pictures, sound, codec="mpeg4", sound_codec="aac"):
    """Write a file that declares a video and a sound track, one of which may be empty."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = out.add_stream(sound_codec, rate=RATE, layout="mono")
        packets = []
        for index in range(20 if pictures else 0):
            frame = av.VideoFrame.from_ndarray(bits_of(index), format="rgb24")
            packets += video.encode(frame)
        packets += video.encode(None) if pictures else []
        for start in range(0, RATE * 2 if sound else 0, 1152):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 1152), 0.2, np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, start
            packets += audio.encode(frame)
        packets += audio.encode(None) if sound else []
        for packet in packets:
            out.mux(packet)
    return path


@pytest.mark.parametrize(("name", "sound_codec"), [("mute.mkv", "aac"), ("mute.avi", "mp2")])
def test_a_sound_track_without_sound_is_none(tmp_path, name, sound_codec):
    file = declared_only(tmp_path / name, pictures=True, sound=False, sound_codec=sound_codec)
    info = probe(file)
    assert info.has_video and not info.has_audio and info.audio_codec is None
    assert len(read_waveform(file, 16000)) == 0 and numbers(file, [0.5]) == [5]
    assert probe(declared_only(tmp_path / "a.mkv", pictures=True, sound=True)).has_audio


def test_pictures_that_are_only_declared_are_none_beside_sound(tmp_path):
    info = probe(declared_only(tmp_path / "dark.mkv", pictures=False, sound=True))
    assert info.has_audio and not info.has_video and info.width is None


@pytest.mark.parametrize(("name", "codec"), [("long.flv", "flv"), ("long.nut", "mpeg4")])
def test_sound_may_go_on_where_the_container_gives_one_length_for_all(tmp_path, name, codec):
    pictures = [bits_of(index) for index in range(50)]
    file = render(tmp_path / name, pictures=pictures, sound=beep(8, 4, 5), codec=codec)
    assert numbers(file, [0.55, 7.5]) == [13, 49]


@pytest.mark.parametrize(
    ("name", "codec", "sound_codec"),
    [
        ("a.ts", "mpeg4", "aac"), ("a.mpg", "mpeg2video", "mp2"), ("a.mkv", "mpeg4", "aac"),
        ("a.flac", None, "flac"),
    ],
)  # fmt: skip
def test_recordings_that_were_joined_as_bytes_are_said_to_be(tmp_path, name, codec, sound_codec):
    pictures = [bits_of(index) for index in range(100)] if codec else None
    options = {"codec": codec} if codec else {}
    part = render(
        tmp_path / name, pictures=pictures, sound=beep(4, 1, 2), sound_codec=sound_codec, **options
    )
    assert probe(part).duration == pytest.approx(4.0, abs=0.2)
    part.write_bytes(part.read_bytes() * 2)
    with pytest.raises(DataError, match=rf"{name} holds recordings that were joined .* after [34]"):
        probe(part)


def test_the_packets_of_a_file_are_limited_by_its_seconds_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("avplatform.features.container.MOST_PACKETS", 10)
    monkeypatch.setattr("avplatform.features.container.PACKETS_A_SECOND", 50)
    file = render(tmp_path / "long.mp3", sound=beep(4, 1, 2), sound_codec="libmp3lame")
    with pytest.raises(DataError, match=r"more than 100 packets, .* 2 s \(--max-seconds\)"):
        probe(file, limits=Limits(max_seconds=2))
    assert probe(file, limits=Limits(max_seconds=5)).duration == pytest.approx(4.0, abs=0.2)
    assert Limits(max_seconds=40_000).max_packets > 1_350_000  # nine hours of mp3


@pytest.mark.parametrize(("aspect", "turned"), [((2, 1), 0), ((1, 2), 0), ((2, 1), 90)])
def test_pixels_that_are_not_square_are_shown_as_a_player_does(tmp_path, aspect, turned):
    ratio = Fraction(*aspect)
    y, x = np.mgrid[:96, :96]
    disc = ((x - 48) * ratio / 24) ** 2 + ((y - 48) / 24) ** 2 < (1 if ratio > 1 else 0.25)
    picture = np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    with av.open(str(tmp_path / "dvd.mp4"), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 96, 96, "yuv420p"
        video.codec_context.sample_aspect_ratio = ratio
        for _ in range(10):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode(None))
    file = turn(tmp_path / "dvd.mp4", turned) if turned else tmp_path / "dvd.mp4"
    info = probe(file)
    wide = round(96 * ratio)
    assert (info.width, info.height) == ((96, wide) if turned else (wide, 96))
    shown = read_frames(file, [0.5], 96, short_side=96)[0][..., 0] > 128
    across, down = shown.any(0).sum(), shown.any(1).sum()
    assert across == pytest.approx(down, abs=4) and down > 20
