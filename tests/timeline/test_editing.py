"""Correcting a timeline in a real browser, with mouse and keyboard, and reading it back."""

import time

import pytest

from avplatform.data.adapters.table.readers import read_events
from avplatform.timeline.page import render_page
from tests.timeline.chromium import Browser, find_chromium
from tests.timeline.examples import example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="no chromium; install one, or name it in $AVP_CHROMIUM"
    ),
]
CAR = ".event[aria-label^=Car]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser, tmp_path):
    """The page of the example, without its video, with the corrections open."""
    out = tmp_path / "timeline.html"
    out.write_text(render_page(example("clip.mp4"), source="clip.mp4"), encoding="utf-8")
    browser.open(out.as_uri())
    browser.downloads(tmp_path)
    browser.push("#correct")
    yield browser
    assert browser.errors == [] or all("ERR_FILE_NOT_FOUND" in e for e in browser.errors)


def events(page):
    """Return the events of the page by stream, label, onset and offset."""
    return page.evaluate("timeline.events.map(e => [e.stream, e.label, e.onset, e.offset])")


def saved(page, folder, name):
    """Save a file by its button and return it."""
    page.push({"events.csv": "#save-csv", "events.eaf": "#save-eaf"}[name])
    file, end = folder / name, time.monotonic() + 30
    while not file.is_file():
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.05)
    return file


def test_an_end_of_a_bar_is_dragged_and_its_middle_moves_both(page):
    pps = page.evaluate("timeline.pps")
    left, top, width, height = page.box(CAR)
    page.drag(left + width - 3, top + height / 2, to=left + width - 3 + 1.5 * pps)
    assert ["visual", "Car", 4, 8.5] in events(page)
    page.drag(left + 3, top + height / 2, to=left + 3 - 0.8 * pps)
    assert ["visual", "Car", 3.2, 8.5] in events(page)
    left, top, width, height = page.box(CAR)
    page.drag(left + width / 2, top + height / 2, to=left + width / 2 + 40 * pps)
    assert ["visual", "Car", 4.7, 10] in events(page)  # it stays inside of the video
    assert page.evaluate(f"document.querySelector('{CAR}').textContent") == "\u2713"
    assert "3 changes, not saved yet" in page.evaluate(
        "document.getElementById('edit-state').textContent"
    )


def test_the_keyboard_alone_corrects_adds_deletes_and_goes_back(page):
    before = events(page)
    page.evaluate(f"document.querySelector('{CAR}').focus()")
    page.press("Enter", text="\r")  # chooses it, and goes to its onset
    for _ in range(3):
        page.press("ArrowRight")
    page.press("ArrowLeft")
    page.press("]", text="]")  # the offset comes to the playhead
    assert ["visual", "Car", 4, 6] in events(page)
    page.press("Delete")
    assert len(events(page)) == len(before) - 1
    page.press("z", control=True)
    page.press("z", control=True)
    assert events(page) == before
    page.press("z", control=True, shift=True)
    assert ["visual", "Car", 4, 6] in events(page)
    page.press("Home")
    page.evaluate("document.getElementById('event-label').value = 'Siren, far'")
    page.press("a", text="a")
    assert ["visual", "Siren, far", 0, 1] in events(page)
    assert "Siren" in page.evaluate("document.activeElement.ariaLabel")
    rows = page.evaluate("document.querySelectorAll('#events tr').length")
    assert rows == len(events(page)) == len(before) + 1


def test_fields_change_the_chosen_event_and_refuse_what_cannot_be(page):
    page.push(CAR)
    for name, value in (("event-offset", "6.5"), ("event-label", "Bus"), ("event-stream", "audio")):
        page.evaluate(
            f"(f => {{ f.value = '{value}'; f.dispatchEvent(new Event('change')); }})"
            f"(document.getElementById('{name}'))"
        )
    assert ["audio", "Bus", 4, 6.5] in events(page)
    page.evaluate(
        "(f => { f.value = '9'; f.dispatchEvent(new Event('change')); })"
        "(document.getElementById('event-onset'))"
    )
    assert ["audio", "Bus", 4, 6.5] in events(page)
    assert "after the onset" in page.evaluate(
        "document.getElementById('event-offset').validationMessage"
    )


def test_what_is_heard_and_seen_follows_from_both(page):
    left, top, width, height = page.box(".event[aria-label^='Dog, audio, 6']")
    page.drag(left + 3, top + height / 2, to=left + 3 + page.evaluate("timeline.pps"))
    found = [e for e in events(page) if e[1] == "Dog" and e[2] > 5]
    assert sorted(found) == [["audio", "Dog", 7, 8], ["av", "Dog", 7, 8]]
    page.push(".event[aria-label^='Dog, av, 7']")  # it cannot be chosen
    page.evaluate("document.activeElement.blur()")
    page.press("Delete")
    assert [e for e in events(page) if e[1] == "Dog" and e[2] > 5] == []  # the audio event went
    options = "[...document.querySelectorAll('#event-stream option')].map(o => o.value)"
    assert page.evaluate(options) == ["audio", "visual"]


@pytest.mark.parametrize("name", ["events.csv", "events.eaf"])
def test_what_is_saved_is_read_as_a_table_of_events(page, tmp_path, name):
    left, top, width, height = page.box(CAR)
    end, pps = left + width - 3, page.evaluate("timeline.pps")
    page.drag(end, top + height / 2, to=end + pps)
    page.evaluate("document.getElementById('event-label').value = 'a \"b\" & <c>, d'")
    page.press("a", text="a")
    read, odd = read_events([saved(page, tmp_path, name)])
    found = [[e.stream, e.label, e.onset, e.offset] for e in read]
    assert sorted(found) == sorted(events(page)) and not odd
    assert {e.video for e in read} == {"clip.mp4" if name == "events.csv" else "clip"}
    assert "not saved" not in page.evaluate("document.getElementById('edit-state').textContent")


def test_a_video_without_any_event_stays_in_the_table(page, tmp_path):
    while events(page):
        page.push(".event[aria-label*=', audio'], .event[aria-label*=', visual']")
        page.press("Delete")
    assert not page.evaluate("document.getElementById('nothing').hidden")
    text = saved(page, tmp_path, "events.csv").read_text(encoding="utf-8")
    assert text == "video,stream,label,onset,offset,score\nclip.mp4,,,,,\n"


def test_without_corrections_open_nothing_can_be_changed(page):
    page.push("#correct")
    before = events(page)
    left, top, width, height = page.box(CAR)
    page.drag(left + width / 2, top + height / 2, to=left + width)
    page.press("Delete")
    page.press("a", text="a")
    assert events(page) == before
    assert page.evaluate("document.getElementById('editor').hidden")
