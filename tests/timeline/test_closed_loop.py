"""Predict, correct on the page, train again: the loop that the page on prediction describes.

The videos are rendered (SYNTHETIC), and the model is right about all others of their kind. Two
events of one video are as no other: a red lamp that is dim at first, which the model finds too
late, and a lamp that is green, which it does not find and the user calls the blue one. The first
is corrected with the mouse, the second with the keyboard.
"""

import json
from pathlib import Path

import pytest

from avplatform import open_data
from avplatform.cli import main
from tests.features.networks import small_weights
from tests.own_videos import LAMPS, make_lamps, render_lamps
from tests.timeline.chromium import Browser, find_chromium
from tests.timeline.test_editing import events, saved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="no chromium; install one, or name it in $AVP_CHROMIUM"
    ),
]
RED, MISSED, TONE = (
    ["visual", "red lamp", 1, 5],
    ["visual", "blue lamp", 6, 9],
    ["audio", "high tone", 3, 8],
)
TOLERANCE = 1.0
"""Seconds by which an onset or offset may be wrong: one segment."""
EXTRACT = (
    "--out data --segments 10 --split 0.6,0.2,0.2 --audio vggish --visual timm:test_resnet "
    "--motion none --cpu"
)
TRAIN = (
    "train --task avvp --encoder han --decoder mmil --encoder-config.width 64 --seed 1 --cpu "
    "--encoder-config.hidden 64 --epochs 300 --max-steps 500 --batch-size 8 --optim.lr 1e-3 "
    "--threads 1 --precision no --no-save-plots --data data"
)


def same(one, other):
    """Return whether two events are the same, up to the tolerance in their times."""
    off = (abs(a - b) for a, b in zip(one[2:], other[2:], strict=True))
    return one[:2] == other[:2] and max(off) <= TOLERANCE


def wrong(found):
    """Return the true events that were not found, and the found ones that are not true."""
    true = [RED, MISSED, TONE]
    missing = [event for event in true if not any(same(event, other) for other in found)]
    return missing, [event for event in found if not any(same(event, other) for other in true)]


def tab_to(page, there):
    for _ in range(200):
        page.press("Tab")
        if page.evaluate(there):
            return
    raise AssertionError(f"the tabulator does not lead to {there}")


def correct_by_mouse(page):
    """Drag both ends of the bar of the red lamp to where they belong."""
    bar, pps = ".event[aria-label^='red lamp']", page.evaluate("timeline.pps")
    page.evaluate(f'document.querySelector("{bar}").scrollIntoViewIfNeeded()')
    for part in (0, 1):
        left, top, width, height = page.box(bar)
        end = left + width - 3 if part else left + 3
        ((_, _, *times),) = [event for event in events(page) if event[1] == RED[1]]
        page.drag(end, top + height / 2, to=end + (RED[2 + part] - times[part]) * pps)


def correct_by_keyboard(page):
    """Add an event at the playhead, bring its offset there, and type its label."""
    stream, label, onset, offset = MISSED
    page.press("Home")
    for _ in range(onset):
        page.press("ArrowRight")
    page.press("a", text="a")
    for _ in range(offset - onset):
        page.press("ArrowRight")
    page.press("]", text="]")
    tab_to(page, "document.activeElement.id === 'event-label'")
    page.type(label)
    page.press("Tab")
    assert page.evaluate("document.getElementById('event-stream').value") == stream


def predicted(model, name, *weights):
    """Return the events that a model finds in the new video."""
    assert main(["predict", "new.mp4", "--model", model, "--out", name, "--cpu", *weights]) == 0
    found = json.loads(Path(name, "new", "events.json").read_text(encoding="utf-8"))["events"]
    return [[event[k] for k in ("stream", "label", "onset", "offset")] for event in found]


def labels_of(store, clip):
    """Return the labels of a clip of the training split."""
    data = open_data(store, task="avvp").split("train")
    batch = data.batch([data.clip_ids.index(clip)])
    return {name: values.tolist() for name, values in batch.labels.items()}


def test_what_is_corrected_on_the_page_is_right_after_training_again(tmp_path, monkeypatch):
    make_lamps(tmp_path, count=30, step=1.0, tones={"low tone": 600, "high tone": 3000})
    lamps = [(1, 3, (130, 25, 25)), (3, 5, LAMPS["red lamp"]), (6, 9, (30, 200, 30))]
    render_lamps(tmp_path / "new.mp4", lamps=lamps, tones=[(3, 8, 3000)])
    monkeypatch.chdir(tmp_path)
    files = small_weights(tmp_path, gain=10)
    weights = ["--weights", f"vggish={files['vggish']}", f"visual={files['visual']}"]
    extract = [*EXTRACT.split(), *weights, "--events", "events.csv"]
    assert main(["extract", "videos", *extract]) == 0
    assert main([*TRAIN.split(), "--output-dir", "first"]) == 0
    found = predicted("first", "found", *weights)
    missing, false = wrong(found)
    assert missing == [RED, MISSED] and [event[1] for event in false] == ["red lamp"], found

    (tmp_path / "saved").mkdir()
    page = Browser(tmp_path / "profile")
    try:
        page.open((tmp_path / "found" / "new" / "timeline.html").as_uri())
        page.downloads(tmp_path / "saved")
        page.push("#correct")
        correct_by_mouse(page)
        correct_by_keyboard(page)
        assert sorted(events(page)) == sorted([RED, MISSED, TONE])
        table, elan = (saved(page, tmp_path / "saved", n) for n in ("events.csv", "events.eaf"))
        assert page.errors == []
    finally:
        page.close()

    assert main(["extract", "new.mp4", *extract, str(table)]) == 0
    imported = ["data", "import", "table", "data", "--out", "elan", "--events", "events.csv"]
    assert main([*imported, str(elan)]) == 0
    assert labels_of("elan", "new") == labels_of("data", "new")

    assert main([*TRAIN.split(), "--init-from", "first", "--output-dir", "better"]) == 0
    better = predicted("better", "again", *weights)
    assert wrong(better) == ([], []), better
