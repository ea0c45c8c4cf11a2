import io
import wave

import numpy as np
import pytest

av = pytest.importorskip("av")
from PIL import Image, ImageDraw  # noqa: E402

from avplatform.models.errors import DataError, UsageError  # noqa: E402
from examples.real_media.check import loudness  # noqa: E402
from examples.real_media.compose import compose, event_table, write_clip  # noqa: E402
from examples.real_media.material import (  # noqa: E402
    RATE,
    Material,
    Photo,
    decode_photo,
    decode_sound,
    tighten,
)
from examples.real_media.plan import Plan, PlannedClip, PlannedEvent  # noqa: E402
from examples.real_media.render import FPS, render_frames, render_sound  # noqa: E402


def event(label, stream, onset, offset):
    return PlannedEvent(label=label, stream=stream, onset=onset, offset=offset)


def tone(hertz, seconds=0.7):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


@pytest.fixture(scope="module")
def material():
    ball = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    ImageDraw.Draw(ball).ellipse((0, 0, 59, 59), fill=(230, 20, 20, 255))
    return Material(
        photos={
            "Basketball_bounce": [Photo(image=ball, cut_out=True)],
            "Cat": [Photo(image=Image.new("RGBA", (400, 300), (20, 20, 230, 255)), cut_out=False)],
        },
        sounds={"Dog": [tone(1000)], "Cat": [tone(3000, 2.0)]},
        places=[Photo(image=Image.new("RGBA", (480, 360), (20, 200, 20, 255)), cut_out=False)],
        ambience=[tone(200, 3.0)],
    )


@pytest.fixture(scope="module")
def clip():
    events = [event("Dog", "audio", 4, 5), event("Cat", "audio", 7, 10)]
    events += [event("Basketball_bounce", "visual", 2, 6), event("Cat", "visual", 5, 9)]
    return PlannedClip(name="test_0000", split="test", events=tuple(events))


@pytest.fixture(scope="module")
def file(tmp_path_factory, material, clip):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(path, render_frames(clip, material, 1), render_sound(clip, material, 1))
    return path


def heard_at(file, hertz):
    """Seconds of the decoded file with a tone: power within 60 Hz against all in any second."""
    with av.open(str(file)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    seconds = samples[: 10 * RATE].reshape(10, RATE)
    power = np.abs(np.fft.rfft(seconds, axis=1))[:, hertz - 60 : hertz + 60].max(axis=1)
    return np.flatnonzero(power > 0.1 * power.max()).tolist()


def test_a_beep_in_second_4_is_decoded_in_second_4_and_no_other(file):
    assert heard_at(file, 1000) == [4]
    assert heard_at(file, 3000) == [7, 8, 9]


def test_the_check_of_finished_clips_tells_heard_seconds_from_the_others(tmp_path, file, clip):
    (tmp_path / "plan.json").write_text(Plan(seed=1, clips=(clip,)).to_json())
    (tmp_path / "test_0000.mp4").write_bytes(file.read_bytes())
    heard, other = loudness(tmp_path)
    assert (len(heard), len(other)) == (4, 6) and heard.min() > 3 * other.max()
    with pytest.raises(DataError, match="no plan.json"):
        loudness(tmp_path / "elsewhere")


def test_photos_are_on_the_decoded_frames_of_their_seconds_and_no_others(file):
    with av.open(str(file)) as container:
        frames = np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        ).astype(int)
    assert frames.shape == (10 * FPS, 240, 320, 3)
    seen = {}
    for name, colour in (("ball", 0), ("cat", 2)):
        others = [channel for channel in (0, 1, 2) if channel != colour]
        share = ((frames[..., colour] > 150) & (frames[..., others] < 100).all(axis=-1)).mean(
            axis=(1, 2)
        )
        seen[name] = (share > 0.05).reshape(10, FPS)
        assert (seen[name].all(axis=1) == seen[name].any(axis=1)).all()  # for whole seconds
    assert np.flatnonzero(seen["ball"].any(axis=1)).tolist() == [2, 3, 4, 5]
    assert np.flatnonzero(seen["cat"].any(axis=1)).tolist() == [5, 6, 7, 8]


def test_things_that_are_seen_together_do_not_hide_each_other(material):
    events = (event("Basketball_bounce", "visual", 0, 10), event("Cat", "visual", 0, 10))
    clip = PlannedClip(name="x", split="train", events=events)
    for frame in list(render_frames(clip, material, 3))[:: FPS * 3]:
        red, blue = frame[:, :, 0] > 150, frame[:, :, 2] > 150
        assert (
            red.mean() > 0.05 and blue.mean() > 0.1 and np.flatnonzero(red.any(axis=0)).max() <= 161
        )


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, file, material, clip):
    for name, seed in (("same", 1), ("other", 2)):
        write_clip(
            tmp_path / f"{name}.mp4",
            render_frames(clip, material, seed),
            render_sound(clip, material, seed),
        )
    assert (tmp_path / "same.mp4").read_bytes() == file.read_bytes()
    assert (tmp_path / "other.mp4").read_bytes() != file.read_bytes()


def test_a_short_sound_is_heard_in_every_second_of_a_long_event(material):
    clip = PlannedClip(name="x", split="train", events=(event("Dog", "audio", 1, 9),))
    loud = np.sqrt((render_sound(clip, material, 4).reshape(10, RATE) ** 2).mean(axis=1))
    assert (loud[1:9] > 0.05).all() and loud[0] < 0.02 and loud[9] < 0.02


def test_silence_is_cut_and_recordings_become_equally_loud():
    pause = np.zeros(RATE, np.float32)
    sound = np.concatenate([pause, 0.01 * tone(500), pause, 0.01 * tone(500), pause])
    cut = tighten(sound)
    assert 1.4 * RATE < len(cut) < 1.7 * RATE and np.sqrt((cut**2).mean()) == pytest.approx(
        1, abs=0.01
    )
    with pytest.raises(DataError, match="silent"):
        tighten(pause)


def test_pictures_and_recordings_are_decoded_and_others_refused():
    picture = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    picture.paste((9, 9, 9, 255), (10, 5, 20, 15))
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    photo = decode_photo("thing", stored.getvalue())
    assert photo.image.size == (10, 10)
    recording = io.BytesIO()
    with wave.open(recording, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(22_050)
        out.writeframes((20_000 * tone(440)[::2]).astype("<i2").tobytes())
    assert len(decode_sound("beep", recording.getvalue())) == pytest.approx(0.7 * RATE, rel=0.05)
    for decode in (decode_photo, decode_sound):
        with pytest.raises(DataError, match="thing.xyz"):
            decode("thing.xyz", b"neither")


def test_a_folder_of_another_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text(Plan(seed=1, clips=()).to_json())
    with pytest.raises(UsageError, match="another seed or number"):
        compose(tmp_path, tmp_path, sizes={"train": 1}, seed=2, console=None)


def test_the_event_table_names_every_event(clip):
    lines = event_table(Plan(seed=1, clips=(clip,))).splitlines()
    assert len(lines) == 1 + len(clip.events) and lines[1] == "test_0000\t4\t5\tDog\taudio"
