"""Event lists of every format come back as they were written, with file and line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.table.events import Event, labels_of, names_of, seconds_of
from avplatform.data.adapters.table.readers import read_events, read_names
from avplatform.models.errors import DataError
from avplatform.timeline.event import events_of
from avplatform.timeline.export import write_exports
from avplatform.timeline.timeline import Timeline
from tests.data.event_files import PLAIN, STREAMED, WHOLE

MILLISECONDS = 4_000_000
LABELS = st.sampled_from(
    ["dog", "Siren, police", "Türklingel", "猫", 'a "loud" car', "A & B", "x<y", "dog_bark", "007"]
)
VIDEOS = st.sampled_from(["clip1", "clip.two", "Straße 3", "v-4_x"])


@st.composite
def events(draw, whole=True):
    found = []
    for _ in range(draw(st.integers(1, 8))):
        a = draw(st.integers(0, MILLISECONDS))
        b = draw(st.integers(a + 1, MILLISECONDS + 1))
        event = Event(video=draw(VIDEOS), label=draw(LABELS), onset=a / 1000, offset=b / 1000)
        event = replace(event, stream=draw(st.sampled_from(["audio", "visual", "av"])))
        if whole:
            split = draw(st.sampled_from([None, "train", "validation", "test"]))
            event = replace(event, split=split, score=draw(st.sampled_from([None, 0.25, 1.0])))
        found.append(event)
    return found


def values_of(found, *names):
    return sorted(tuple(str(getattr(event, name)) for name in names) for event in found)


def round_trip(write, given_events, tmp_path_factory, *names, by=lambda video: video):
    read, _ = read_events(write(given_events, tmp_path_factory.mktemp("lists")))
    wanted = values_of(given_events, *names)
    assert values_of([replace(e, video=by(e.video)) for e in read], *names) == wanted
    assert all(event.line > 0 and event.file for event in read)


QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", WHOLE)
@given(found=events())
@QUICK
def test_a_table_comes_back_with_all_its_columns(name, found, tmp_path_factory):
    columns = ("video", "onset", "offset", "label", "stream", "split", "score")
    round_trip(WHOLE[name], found, tmp_path_factory, *columns)


@pytest.mark.parametrize("name", STREAMED)
@given(found=events(whole=False))
@QUICK
def test_files_of_annotation_programs_come_back_with_streams(name, found, tmp_path_factory):
    columns = ("video", "onset", "offset", "label", "stream")
    by = (lambda video: names_of(video)[-1]) if name == "via" else (lambda video: video)
    round_trip(STREAMED[name], found, tmp_path_factory, *columns, by=by)


@pytest.mark.parametrize("name", PLAIN)
@given(found=events(whole=False))
@QUICK
def test_lists_of_sounds_come_back_with_times_and_labels(name, found, tmp_path_factory):
    by = (lambda video: video) if name == "audacity" else (lambda video: names_of(video)[-1])
    round_trip(PLAIN[name], found, tmp_path_factory, "video", "onset", "offset", "label", by=by)


def test_a_timeline_of_this_platform_is_read_from_its_own_files(tmp_path):
    found = {"audio": np.array([[1, 0], [1, 1], [0, 1]], bool), "av": np.eye(3, 2, dtype=bool)}
    scores = {name: np.where(maps, 0.75, 0.1) for name, maps in found.items()}
    timeline = Timeline(
        video="clip7.mp4", duration=3.0, model="m", task="t", decoder="d", encoder="e",
        labels=["dog", "train horn"], open_labels=False, scores=scores, found=found,
        events=events_of(found, scores, ["dog", "train horn"], duration=3.0),
    )  # fmt: skip
    write_exports(timeline, tmp_path, media="../clip7.mp4")
    (tmp_path / "events.vtt").rename(tmp_path / "clip7.vtt")
    columns = ("onset", "offset", "label", "stream", "score")
    wanted = values_of(timeline.events, *columns)
    assert len(wanted) == 4
    for name in ("events.json", "events.eaf", "clip7.vtt"):
        read, _ = read_events([tmp_path / name])
        assert values_of(read, *columns) == wanted, name
        assert {names_of(event.video)[-1] for event in read} == {"clip7"}, name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7), ("7.5", 7.5), ("7,5", 7.5), ("1.0", 1), ("0:07.5", 7.5), ("00:00:07", 7),
        ("1:02:03.25", 3723.25), ("90:00", 5400), (" 7.5 ", 7.5), (".5", 0.5), ("1e-3", 0.001),
        (7, 7), (7.25, 7.25), ("0:07.1", 7.1), ("75", 75),
    ],
)  # fmt: skip
def test_a_time_is_read_as_it_is_written(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "\u22121",
        "7 s",
        "500ms",
        "1:75",
        "1:60:00",
        "7.5.2",
        "0:00:07:12",
        "abc",
        "inf",
        "1:-2",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="give seconds such as 7.5"):
        seconds_of(text)


@given(st.integers(0, 10**8))
@settings(max_examples=200, deadline=None)
def test_minutes_and_seconds_are_the_same_number(milliseconds):
    seconds = milliseconds / 1000
    minutes, rest = divmod(milliseconds, 60_000)
    assert seconds_of(f"{minutes}:{rest // 1000:02d}.{rest % 1000:03d}") == seconds
    assert seconds_of(repr(seconds)) == seconds


def test_several_labels_of_a_cell_are_separated_by_the_stated_rule(tmp_path):
    assert labels_of("dog,cat", several=True) == ["dog", "cat"]
    assert labels_of("dog,cat", several=False) == "dog,cat"
    assert labels_of("siren, police;dog", several=True) == ["siren, police", "dog"]
    assert labels_of("a/b", several=False, separator="/") == ["a", "b"]
    (tmp_path / "e.csv").write_text('video,labels\na,"dog,cat"\nb,dog|car\n')
    found, _ = read_events([tmp_path / "e.csv"])
    assert [(e.video, e.label, e.line) for e in found if not e.timed] == [
        ("a", "dog", 2), ("a", "cat", 2), ("b", "dog", 3), ("b", "car", 3),
    ]  # fmt: skip
    (tmp_path / "e.json").write_text(json.dumps([{"video": 1, "label": ["dog", "siren, police"]}]))
    assert [(e.video, e.label) for e in read_events([tmp_path / "e.json"])[0]] == [
        ("1", "dog"), ("1", "siren, police"),
    ]  # fmt: skip


def test_a_list_of_videos_is_a_table_or_one_name_a_line(tmp_path):
    (tmp_path / "names.txt").write_text("video\nclip1.mp4\n\nclip 2\n")
    (tmp_path / "plain.txt").write_text("a, b.mp4\nc.mp4\n")
    found = read_names([tmp_path / "names.txt", tmp_path / "plain.txt"])
    assert [(e.video, e.line) for e in found] == [
        ("clip1.mp4", 2), ("clip 2", 4), ("a, b.mp4", 1), ("c.mp4", 2),
    ]  # fmt: skip
    (tmp_path / "names.txt").write_text("video\tlabel\nclip1\tdog\n")
    with pytest.raises(DataError, match="names.txt, line 2: lists the event 'dog'"):
        read_names([tmp_path / "names.txt"])


def test_a_quoted_cell_may_hold_a_line_end(tmp_path):
    (tmp_path / "e.csv").write_text('video,onset,offset,label\na,0,1,"dog\nbark"\nb,2,1,cat\n')
    with pytest.raises(DataError, match="e.csv, line 4: the event 'cat' ends before it begins"):
        read_events([tmp_path / "e.csv"])


ALL = {**WHOLE, **STREAMED, **PLAIN}
BYTES = st.binary(max_size=4) | st.sampled_from([b'"', b"\n", b"{", b"<", b"\0", b"\t", b"[1"])
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), BYTES), min_size=1, max_size=4)


@pytest.mark.parametrize("name", ALL)
@given(found=events(), damage=DAMAGE)
@QUICK
def test_a_damaged_file_is_read_or_refused_with_its_name(name, found, damage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    ALL[name](found, folder)
    file = sorted(folder.iterdir())[0]
    content = bytearray(file.read_bytes())
    for share, removed, added in damage:
        at = int(share * len(content))
        content[at : at + removed] = added
    file.write_bytes(bytes(content))
    try:
        read, _ = read_events([file])
    except DataError as error:
        assert str(file) in str(error)
    else:
        assert all(event.video and (event.label or not event.timed) for event in read)


@pytest.mark.parametrize("encoding", ["UF-8", "UTF-7", "Shift_JIS"])
def test_an_elan_file_in_an_encoding_that_cannot_be_read_is_refused(tmp_path, encoding):
    file = tmp_path / "clip.eaf"
    file.write_text(
        f'<?xml version="1.0" encoding="{encoding}"?>\n<ANNOTATION_DOCUMENT/>', encoding="utf-8"
    )
    with pytest.raises(DataError, match="clip.eaf.*is not XML"):
        read_events([file])
