"""JSON, CSV, ELAN and WebVTT say what the timeline says, and are read by independent readers."""

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from avplatform.data.adapters.table.checks import make_table
from avplatform.data.adapters.table.readers import read_events
from avplatform.timeline.event import Event
from avplatform.timeline.export import as_csv, as_eaf, as_json, as_vtt
from tests.timeline.examples import example

BAD = 'a <b>, "c" & d\n--> e'


@pytest.fixture
def timeline():
    return example(duration=9.75)


@pytest.fixture
def odd():
    """A label that every format must quote."""
    made = example()
    made.events = [dataclasses.replace(made.events[0], label=BAD, onset=3661.5, offset=3663.25)]
    made.labels = [BAD, *made.labels]
    return made


def test_json_holds_the_events_and_the_scores_of_every_second(timeline):
    content = json.loads(as_json(timeline))
    assert [Event(**e).label for e in content["events"]] == [e.label for e in timeline.events]
    assert len(content["scores"]["audio"]) == 10 and len(content["scores"]["audio"][0]) == 25
    assert (
        len(content["attention"]["visual"]) == 25 and len(content["attention"]["visual"][0]) == 10
    )
    assert content["duration"] == 9.75 and content["streams"] == ["audio", "visual", "av"]


def test_csv_has_a_row_an_event(timeline, odd):
    rows = list(csv.DictReader(io.StringIO(as_csv(timeline))))
    assert len(rows) == len(timeline.events) and list(rows[0]) == [
        "video",
        "stream",
        "label",
        "onset",
        "offset",
        "score",
    ]
    assert {row["video"] for row in rows} == {timeline.video}
    assert [float(r["offset"]) for r in rows] == [round(e.offset, 3) for e in timeline.events]
    assert next(csv.DictReader(io.StringIO(as_csv(odd))))["label"] == BAD


def test_the_tables_of_several_videos_are_one_list_of_events(timeline, tmp_path):
    other = dataclasses.replace(timeline, video="videos/other.mp4", events=timeline.events[:2])
    (head, *rows), (_, *more) = (as_csv(each).splitlines() for each in (timeline, other))
    (tmp_path / "all.csv").write_text("\n".join([head, *rows, *more]) + "\n")
    events, _ = read_events([tmp_path / "all.csv"])
    found = [(e.video, e.stream, e.label, e.onset, e.offset, e.score) for e in events]
    assert found == [
        (each.video, e.stream, e.label, round(e.onset, 3), round(e.offset, 3), round(e.score, 4))
        for each in (timeline, other)
        for e in each.events
    ]
    table = make_table(events, videos=["other", Path(timeline.video).stem])  # as an import does
    assert len(table.videos["other"]) == 2


def test_vtt_has_a_cue_an_event_in_order(timeline, odd):
    text = as_vtt(timeline)
    assert text.startswith("WEBVTT\n")
    cues = re.findall(
        r"(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})"
        r"\n<v ([\w-]+)>(.+) \((\d\.\d\d)\)",
        text,
    )
    onsets = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s, *_ in cues]
    assert onsets == sorted(e.onset for e in timeline.events)
    assert {voice for *_, voice, _, _ in cues} == {"audio", "visual", "av"}
    cue = as_vtt(odd).split("\n\n")[2].rstrip("\n")
    assert cue.splitlines()[1] == "01:01:01.500 --> 01:01:03.250"
    assert (
        cue.count("\n") == 2 and cue.count("-->") == 1 and "&lt;b&gt;" in cue and "&amp; d" in cue
    )


def test_eaf_has_a_tier_for_each_label_of_a_stream_without_overlaps(timeline, odd):
    root = ET.fromstring(as_eaf(timeline, media="../my%20clip.mp4"))
    assert root.find("HEADER/MEDIA_DESCRIPTOR").get("RELATIVE_MEDIA_URL") == "../my%20clip.mp4"
    slots = {s.get("TIME_SLOT_ID"): int(s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    types = {t.get("LINGUISTIC_TYPE_ID") for t in root.iter("LINGUISTIC_TYPE")}
    read = []
    for tier in root.iter("TIER"):
        assert tier.get("LINGUISTIC_TYPE_REF") in types
        stream, label = tier.get("TIER_ID").split(": ")
        spans = [
            (slots[a.get("TIME_SLOT_REF1")], slots[a.get("TIME_SLOT_REF2")])
            for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        assert all(one[1] <= two[0] for one, two in zip(spans, spans[1:], strict=False))
        read += [(stream, label, *span) for span in spans]
    wanted = [
        (e.stream, e.label, round(e.onset * 1000), round(e.offset * 1000)) for e in timeline.events
    ]
    assert sorted(read) == sorted(wanted)
    ids = [a.get("ANNOTATION_ID") for a in root.iter("ALIGNABLE_ANNOTATION")]
    assert len(set(ids)) == len(ids) == 7
    assert (
        ET.fromstring(as_eaf(odd, media="x.mp4")).find("TIER").get("TIER_ID")
        == 'audio: a <b>, "c" & d --> e'
    )


def test_a_timeline_without_events_is_written_in_every_format(timeline):
    timeline.events = []
    assert json.loads(as_json(timeline))["events"] == []
    assert as_csv(timeline).count("\n") == 1
    assert "-->" not in as_vtt(timeline)
    assert ET.fromstring(as_eaf(timeline, media="x.mp4")).find("TIER") is None
