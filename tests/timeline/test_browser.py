"""The HTML timeline in a real browser: no network, in sync with the video, keyboard and mouse."""

import av
import pytest

from avplatform.timeline.page import render_page, video_source
from avplatform.timeline.preview import Preview, preview
from tests.timeline.chromium import Browser, find_chromium
from tests.timeline.examples import example, write_clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="no chromium; install one, or name it in $AVP_CHROMIUM"
    ),
]
TIME = "document.getElementById('video').currentTime"
SHOWN = "document.getElementById('clock').textContent"
HEAD = "new DOMMatrix(getComputedStyle(document.getElementById('head')).transform).m41"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from avplatform.features.media import probe

    file = write_clip(tmp_path_factory.mktemp("clip") / "my clip #1.webm", seconds=10.0, fps=10)
    return file, preview(file, probe(file))


@pytest.fixture
def page(browser, clip, tmp_path):
    """The page of the example beside its video, just opened."""
    file, shown = clip
    out = tmp_path / "timeline.html"
    out.write_text(
        render_page(example(str(file)), shown, source=video_source(file, out, embed=False))
    )
    browser.open(out.as_uri())
    browser.wait_for("document.getElementById('video').readyState >= 2")
    return browser


def test_the_page_loads_with_its_video_and_asks_for_nothing_else(page, clip):
    assert page.errors == []
    outside = [r for r in page.requests if not r.startswith(("data:", "file:"))]
    files = [r for r in page.requests if r.startswith("file:")]
    assert outside == []
    assert {r.rsplit("/", 1)[-1] for r in files} == {"timeline.html", "my%20clip%20%231.webm"}
    assert page.evaluate("document.getElementById('missing').hidden")
    assert page.evaluate("document.querySelectorAll('.strip img').length") == len(clip[1].frames)
    assert page.evaluate("document.querySelectorAll('.event').length") == 7


def test_the_number_on_a_striped_bar_lies_on_a_plain_colour(page):
    drawn = page.evaluate(
        "(bar => { bar.style.background = 'linear-gradient(red, blue)';"
        " const number = getComputedStyle(bar.querySelector('span'));"
        " return [number.backgroundImage, number.backgroundColor]; })"
        "(document.querySelector('.event'))"
    )
    assert drawn[0] == "none" and drawn[1] != "rgba(0, 0, 0, 0)"


def test_space_plays_and_pauses_and_the_playhead_goes_along(page):
    page.press(" ", text=" ")
    page.wait_for(f"{TIME} > 0.6")
    page.wait_for("document.getElementById('play').textContent === 'Pause'")
    page.press(" ", text=" ")
    page.wait_for("document.getElementById('video').paused")
    pps = page.evaluate("parseFloat(document.documentElement.style.getPropertyValue('--pps'))")
    page.wait_for(f"Math.abs({HEAD} - {TIME} * {pps}) < 0.02 * {pps}")  # drawn with the next frame
    page.wait_for("document.getElementById('play').textContent === 'Play'")


def test_arrows_home_end_and_letters_seek(page):
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.wait_for(f"{SHOWN} === '0:02.0'")
    page.press("ArrowLeft")
    page.wait_for(f"Math.abs({TIME} - 1) < 0.05")
    page.press("ArrowRight", shift=True)
    page.wait_for(f"Math.abs({TIME} - 6) < 0.05")
    page.press("Home")
    page.press("n", text="n")  # the next onset after 0 is that of speech
    page.wait_for(f"Math.abs({TIME} - 2) < 0.05")
    page.press("n", text="n")
    page.wait_for(f"Math.abs({TIME} - 4) < 0.05")
    page.press("p", text="p")
    page.wait_for(f"Math.abs({TIME} - 2) < 0.05")
    page.press("End")
    page.wait_for(f"{TIME} > 9.8")
    page.wait_for(
        "document.querySelector('[role=slider]').getAttribute('aria-valuenow') === '10.0'"
    )


def test_tab_reaches_the_events_and_enter_goes_there(page):
    for _ in range(40):
        page.press("Tab")
        if page.evaluate(
            "document.activeElement.className.startsWith('event') && "
            "document.activeElement.ariaLabel.startsWith('Car')"
        ):
            break
    else:
        raise AssertionError("no event was reached by tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", text="\r")
    page.wait_for(f"Math.abs({TIME} - 4) < 0.05")
    page.wait_for("document.getElementById('now').textContent.includes('Car')")


def test_clicks_on_events_and_tracks_seek(page):
    box = (
        "JSON.stringify(document.querySelector('.event[aria-label^=Car]').getBoundingClientRect())"
    )
    import json

    place = json.loads(page.evaluate(box))
    page.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.wait_for(f"Math.abs({TIME} - 4) < 0.05")  # an event: its beginning
    wave = json.loads(
        page.evaluate(
            "JSON.stringify(document.querySelector('.wave .lane').getBoundingClientRect())"
        )
    )
    page.click(wave["x"] + 0.75 * wave["width"], wave["y"] + 10)
    page.wait_for(f"Math.abs({TIME} - 7.5) < 0.1")  # a track: where it was clicked
    page.wait_for("document.querySelectorAll('.event.current').length === 4")


def test_zoom_keeps_bars_at_their_seconds(page):
    page.press("+", text="+")
    page.press("+", text="+")
    pps = page.evaluate("parseFloat(document.documentElement.style.getPropertyValue('--pps'))")
    width = page.evaluate(
        "document.querySelector('.event[aria-label^=Car]').getBoundingClientRect().width"
    )
    assert width == pytest.approx(3 * pps, rel=0.01)
    assert page.evaluate(
        "document.getElementById('scroll').scrollWidth > "
        "document.getElementById('scroll').clientWidth"
    )


def test_without_its_video_the_page_has_a_clock_of_its_own(browser, tmp_path):
    out = tmp_path / "timeline.html"
    out.write_text(render_page(example("gone.mp4"), source="gone.mp4"))
    browser.open(out.as_uri())
    browser.wait_for("!document.getElementById('missing').hidden")
    assert "gone.mp4" in browser.evaluate("document.getElementById('missing').textContent")
    assert browser.evaluate("getComputedStyle(document.getElementById('video')).display") == "none"
    browser.press("ArrowRight")
    browser.press(" ", text=" ")
    browser.wait_for(f"parseFloat({SHOWN}.split(':')[1]) > 1.3")


def test_scores_and_attention_of_half_seconds_stand_at_their_times(browser, tmp_path):
    timeline = example("x.mp4", seconds=20, duration=10.0)
    timeline.segment_seconds = 0.5
    out = tmp_path / "timeline.html"
    out.write_text(render_page(timeline, source="x.mp4"), encoding="utf-8")
    browser.open(out.as_uri())
    corners = "document.querySelector('.score path').getAttribute('d').match(/[\\d.]+ /g)"
    places = [float(x) for x in browser.evaluate(corners)]
    assert max(places) == 10 and 0.5 in places
    pps = browser.evaluate("parseFloat(document.documentElement.style.getPropertyValue('--pps'))")
    width = browser.evaluate("document.querySelector('canvas').getBoundingClientRect().width")
    assert width == pytest.approx(10 * pps, rel=0.01)


def test_an_embedded_video_plays_from_the_page_alone(browser, clip, tmp_path):
    out = tmp_path / "timeline.html"
    out.write_text(
        render_page(example(str(clip[0])), Preview(), source=video_source(clip[0], out, embed=True))
    )
    browser.open(out.as_uri())
    browser.wait_for("document.getElementById('video').readyState >= 2")
    assert [r for r in browser.requests if not r.startswith("data:")] == [out.as_uri()]


def test_labels_cannot_inject_markup(browser, tmp_path):
    bad = "</script><img src=x onerror=\"document.title='owned'\"><b>"
    out = tmp_path / "timeline.html"
    timeline = example("x.mp4", labels=["Dog", "Speech", "Car"])
    renamed = [
        type(e)(**{**vars(e), "label": bad}) if e.label == "Dog" else e for e in timeline.events
    ]
    timeline.events, timeline.labels, timeline.notes = renamed, [bad, "Speech", "Car"], [bad]
    out.write_text(render_page(timeline, source="x.mp4"))
    browser.open(out.as_uri())
    assert browser.evaluate("document.title") == "x.mp4: event timeline"
    assert browser.evaluate(
        "[...document.querySelectorAll('.name')].some(n => n.textContent.includes('onerror'))"
    )


def test_dark_pages_are_readable(page, tmp_path):
    contrasts = {}
    for dark in (False, True):
        page.dark(dark)
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, "
            "getComputedStyle(document.body).backgroundColor]"
        )
        contrasts[dark] = contrast(*colours)
    page.dark(False)
    assert min(contrasts.values()) > 10


def contrast(one: str, two: str) -> float:
    """Contrast of two colours as WCAG has it."""
    light = []
    for colour in (one, two):
        parts = [int(p) / 255 for p in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_the_example_clip_is_what_the_tests_think(clip):
    with av.open(str(clip[0])) as file:
        assert file.streams.video[0].width == 96
    loud = [n for n, peak in enumerate(clip[1].peaks) if peak > 0.3]
    assert loud and min(loud) >= 3.9 * 40 and max(loud) <= 5.1 * 40
