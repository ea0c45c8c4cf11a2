"""The page as text: whole by itself, its data safe, its colours told apart."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from avplatform.models.errors import UsageError
from avplatform.timeline.page import (
    EMBED_LIMIT,
    look,
    render_page,
    summary,
    text_on,
    video_source,
)
from avplatform.timeline.picture import picture
from avplatform.timeline.preview import Preview, as_jpeg, peaks_of
from tests.timeline.examples import example


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    )


def test_the_page_names_nothing_outside_itself_but_the_video():
    page = render_page(
        example(), Preview(frames=[(0.5, b"jpeg")], peaks=[0.5, 1.0]), source="../clip.mp4"
    )
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["../clip.mp4"]
    named = r"www\.w3\.org|www\.mpi\.nl/tools/elan/EAFv3"  # formats, which are not fetched
    assert not re.search(rf"https?://(?!{named})", page)
    assert "default-src 'none'" in page
    assert data_of(page)["frames"][0]["image"].startswith("data:image/jpeg;base64,")


def test_the_table_stands_in_the_page_without_javascript():
    page = render_page(example(), source="x.mp4")
    rows = re.findall(r"<tr><td>([\w-]+)</td><td>(\w+)</td>", page)
    assert sorted(rows) == sorted((e.stream, e.label) for e in example().events)
    assert "No event was found" in render_page(
        type(example())(**{**vars(example()), "events": []}), source="x.mp4"
    )


def test_labels_and_notes_are_data_and_never_markup():
    timeline = example(labels=["</script><script>alert(1)</script>", "Speech", "Car"])
    timeline.notes = ["<img src=x onerror=alert(1)>"]
    page = render_page(timeline, source='x".mp4')
    assert page.count("<script") == 2 and "<img src=x" not in page
    assert data_of(page)["labels"][0] == "</script><script>alert(1)</script>"


def test_the_video_is_named_by_a_relative_path_or_embedded(tmp_path):
    video = tmp_path / "a b#c.mp4"
    video.write_bytes(b"film")
    page = tmp_path / "out" / "name" / "timeline.html"
    assert video_source(video, page, embed=False) == "../../a%20b%23c.mp4"
    assert video_source(video, page, embed=True) == "data:video/mp4;base64,ZmlsbQ=="
    with video.open("r+b") as file:
        file.truncate(EMBED_LIMIT + 1)
    with pytest.raises(UsageError, match="leave out --embed-video"):
        video_source(video, page, embed=True)


def test_looks_differ_for_thirty_two_labels_and_text_on_them_is_readable():
    looks = [look(number) for number in range(32)]
    assert len({entry["background"] for entry in looks}) == 32
    for entry in looks:
        channels = [int(entry["colour"][n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        ratio = 1.05 / (light + 0.05) if entry["text"] == "#ffffff" else (light + 0.05) / 0.05
        assert ratio >= 4.5, entry
    assert text_on("#000000") == "#ffffff"


def test_the_picture_is_a_png_with_frames_and_sound_or_without(tmp_path):
    frame = as_jpeg(np.full((90, 120, 3), 200, np.uint8))
    whole = picture(example(), tmp_path / "a.png", Preview(frames=[(0.5, frame)], peaks=[0.1, 0.9]))
    bare = picture(example("$x^{2$.mp4"), tmp_path / "b.png")
    with Image.open(whole) as one, Image.open(bare) as two:
        assert one.width == two.width and one.height > two.height


def test_silence_has_a_flat_outline():
    assert peaks_of(np.zeros(100), 10) == [0.0] * 10
    assert data_of(render_page(example(), Preview(peaks=[0.0, 0.0]), source="x.mp4"))["peaks"] == [
        0.0,
        0.0,
    ]


def test_names_in_scripts_that_the_font_lacks_are_drawn_without_a_warning(tmp_path, recwarn):
    picture(example(video="\u65e5\u672c.mp4"), tmp_path / "x.png")
    assert not recwarn.list


def test_the_picture_names_encoder_decoder_and_task(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "avplatform.timeline.picture.save_figure",
        lambda figure, out: titles.append(figure.get_suptitle()),
    )
    timeline = example()
    timeline.encoder = "han"
    picture(timeline, tmp_path / "x.png")
    assert titles == [
        f"{timeline.video}: han + leap on avvp"
    ] and "(han + leap on avvp, " in summary(timeline)
