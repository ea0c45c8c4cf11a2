"""The demo in a real browser without a network, and twenty visitors at once."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avplatform.data.adapters.table.readers import read_events
from avplatform.demo import app
from tests.timeline.chromium import Browser, find_chromium
from tests.timeline.examples import write_clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="no chromium; install one, or name it in $AVP_CHROMIUM"
    ),
]
SAMPLE = Path(os.environ.get("AVP_LLP_DIR", "/absent")) / "sample" / "BjCEufrlXm4.mp4"
FRAME = "document.querySelector('iframe.timeline')"
INSIDE = f"{FRAME}.contentDocument"
VIDEO = f"{INSIDE}.getElementById('video')"
PICTURES = os.environ.get("AVP_DEMO_PICTURES")  # a folder, to look at what the tests saw
GRADIO = "Method not implemented"  # which its client says whenever an answer has come


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"), loopback=True)
    yield opened
    opened.close()


@pytest.fixture
def page(browser, demo, tmp_path):
    """The page of the demo, just opened."""
    browser.dark(False)
    size(browser, 1280, 1100)
    browser.send("Page.navigate", url="about:blank")
    browser.wait_for("location.href === 'about:blank' && document.readyState === 'complete'")
    browser.requests.clear()
    browser.errors.clear()
    browser.send("Page.navigate", url=demo.address)
    browser.wait_for("document.querySelector('input[type=file]')")
    browser.downloads(tmp_path)
    yield browser
    assert [e for e in browser.errors if GRADIO not in e] == []
    asked = [r for r in browser.requests if not r.startswith(("data:", "blob:", demo.address))]
    assert [r for r in asked if r not in ("about:blank", "about:srcdoc")] == []


def size(browser, width, height):
    browser.send(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip


def see(page, name):
    if PICTURES:
        page.screenshot(Path(PICTURES) / f"{name}.png")


def give(page, file):
    """Choose a file in the page's upload field."""
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    found = page.send("DOM.querySelector", nodeId=root, selector="input[type=file]")
    page.send("DOM.setFileInputFiles", files=[str(file)], nodeId=found["nodeId"])


def label(page, text):
    page.push("[data-testid=textbox]")
    page.send("Input.insertText", text=text)


def choose(page, name, value):
    """Choose a value of a list."""
    page.push(f"input[aria-label='{name}']")
    page.wait_for("document.querySelector('[role=option]')")
    page.push(f"[role=option][aria-label='{value}']")
    page.wait_for(f"document.querySelector(\"input[aria-label='{name}']\").value === '{value}'")


def ask(page):
    """Press the button, and wait for the timeline and its video."""
    page.push("button.primary")
    page.wait_for(FRAME)
    page.wait_for(f"{INSIDE}.body && {INSIDE}.body.dataset.ready === 'yes'")
    page.wait_for(f"{VIDEO}.readyState >= 2")


def uploaded(page, file):
    give(page, file)
    page.wait_for("document.querySelector('video') && document.querySelector('video').src")


def test_a_clip_is_uploaded_labels_are_typed_and_the_timeline_plays(page, demo, clip, tmp_path):
    see(page, "start")
    uploaded(page, clip)
    assert (
        page.evaluate(
            "[...document.querySelectorAll('button')].filter(b => b.offsetParent &&"
            " /trim/i.test(b.title + b.ariaLabel)).length"
        )
        == 0
    )  # it would fetch a program
    label(page, "dog, train horn")
    choose(page, "Threshold", "0.01")
    ask(page)
    names = page.evaluate(f"[...{INSIDE}.querySelectorAll('.name')].map(n => n.textContent)")
    assert any("train horn" in name for name in names)
    page.evaluate(f"{INSIDE}.getElementById('play').click()")
    page.wait_for(f"{VIDEO}.currentTime > 0.5 && !{VIDEO}.paused")
    head = f"{FRAME}.contentWindow.getComputedStyle({INSIDE}.getElementById('head')).transform"
    assert page.evaluate(f"new DOMMatrix({head}).m41") > 0
    assert page.evaluate(f"{INSIDE}.querySelectorAll('.score path').length") > 0
    assert page.evaluate(f"{INSIDE}.querySelectorAll('canvas').length") > 0  # attention
    fits = f"{FRAME}.clientHeight >= {INSIDE}.body.scrollHeight"
    page.wait_for(fits)
    see(page, "labels")


def test_the_keys_work_inside_and_what_is_corrected_is_saved(page, clip, tmp_path):
    uploaded(page, clip)
    ask(page)
    page.evaluate(f"{FRAME}.focus()")
    page.evaluate(f"{INSIDE}.getElementById('play').scrollIntoView()")
    page.press("ArrowRight")
    page.wait_for(f"Math.abs({VIDEO}.currentTime - 1) < 0.05")
    page.press(" ", text=" ")
    page.wait_for(f"{VIDEO}.currentTime > 1.3")
    page.press(" ", text=" ")
    page.wait_for(f"{VIDEO}.paused")
    page.press("Home")
    for command in (
        "getElementById('correct').click()",
        "getElementById('event-label').value = 'Siren'",
        "getElementById('add').click()",
        "getElementById('save-csv').click()",
    ):
        page.evaluate(f"{INSIDE}.{command}")
    read, odd = read_events([arrived(tmp_path / "events.csv")])
    assert not odd and {e.video for e in read} == {"clip.webm"}
    assert ["Siren", 0, 1] in [[e.label, e.onset, e.offset] for e in read]
    page.evaluate(f"{INSIDE}.getElementById('save-eaf').click()")
    assert 'MEDIA_URL="clip.webm"' in arrived(tmp_path / "events.eaf").read_text("utf-8")


def arrived(file):
    end = time.monotonic() + 30
    while not file.is_file():
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.05)
    return file


def test_the_files_are_saved_by_their_buttons(page, demo, clip, tmp_path):
    uploaded(page, clip)
    ask(page)
    shown = "[...document.querySelectorAll('button, a')].filter(b => b.offsetParent)"
    for name in app.FILES:
        page.evaluate(f"{shown}.find(b => b.textContent.trim() === '{name}').click()")
        assert arrived(tmp_path / name).stat().st_size > 0


def test_an_example_is_compared_by_two_models_that_play_together(page, demo):
    page.wait_for("document.querySelectorAll('tbody tr, .gallery-item').length >= 2")
    page.push("tbody tr")
    page.wait_for("document.querySelector('[data-testid=textbox]').value.includes('siren')")
    page.evaluate("document.querySelector('[data-testid=textbox]').value = ''")
    page.evaluate(
        "document.querySelector('[data-testid=textbox]').dispatchEvent(new Event('input'))"
    )
    choose(page, "Compare with", demo.models.names[1])
    ask(page)
    page.wait_for("document.querySelectorAll('iframe.timeline').length === 2")
    other = (
        "document.querySelectorAll('iframe.timeline')[1].contentDocument.getElementById('video')"
    )
    page.wait_for(f"{other}.readyState >= 2")
    page.evaluate(f"{VIDEO}.play()")
    page.wait_for(f"!{other}.paused && {other}.currentTime > 0.5 && {other}.muted")
    page.evaluate(f"{VIDEO}.pause()")
    page.wait_for(f"{other}.paused")
    page.evaluate(f"{VIDEO}.currentTime = 7")
    page.wait_for(f"Math.abs({other}.currentTime - 7) < 0.3")
    see(page, "compared")


@pytest.mark.parametrize(("name", "said"), [("text.mp4", "text.mp4"), ("large.mp4", "size")])
def test_what_is_refused_is_said_on_the_page(page, tmp_path, name, said):
    file = tmp_path / name
    file.write_bytes(b"not a video " * (10 if name == "text.mp4" else 2**17))
    give(page, file)
    if name == "text.mp4":
        page.wait_for("document.querySelector('video')")
        page.push("button.primary")
    toast = "document.querySelector('.toast-body, [data-testid=toast-body]')"
    page.wait_for(f"{toast} && getComputedStyle({toast}).opacity === '1'")
    assert said in page.evaluate(f"{toast}.textContent")
    assert "Traceback" not in page.evaluate("document.body.textContent")
    see(page, f"refused-{name}")
    page.errors.clear()  # the browser's own word about the answer 413, or the file


def test_a_narrow_and_a_dark_page_are_readable(page, clip):
    size(page, 400, 900)
    uploaded(page, clip)
    ask(page)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    page.wait_for(f"{FRAME}.clientHeight >= {INSIDE}.body.scrollHeight")
    see(page, "narrow")
    page.dark(True)
    size(page, 1280, 1100)
    page.wait_for("document.body.classList.contains('dark')")
    background = f"getComputedStyle({INSIDE}.body).backgroundColor"
    page.wait_for(f"{background} === 'rgb(20, 23, 26)'")
    see(page, "dark")


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no sample clip (AVP_LLP_DIR)")
def test_the_real_sample_clip_plays(page, demo):
    if SAMPLE.stat().st_size > demo.page.max_file_size:
        pytest.skip("the sample is larger than the test's limit")
    uploaded(page, SAMPLE)
    ask(page)
    page.evaluate(f"{INSIDE}.getElementById('play').click()")
    page.wait_for(f"{VIDEO}.currentTime > 0.5")
    see(page, "sample")


def test_twenty_visitors_at_once_are_all_answered_within_bounded_memory(demo, tmp_path):
    content = [
        write_clip(tmp_path / f"{n}.webm", seconds=2.0 + n / 10, fps=10).read_bytes()
        for n in range(20)
    ]

    def visit(n):
        path = demo.upload(content[n], f"{n}.webm").json()[0]
        return demo.ask(path, labels="" if n % 2 else "dog, train horn")

    visit(0)
    before = memory()
    with ThreadPoolExecutor(20) as visitors:
        answers = list(visitors.map(visit, range(20)))
    assert all(isinstance(answer, list) for answer in answers), answers
    for n, answer in enumerate(answers):
        text = Path(answer[0]["value"]["path"]).read_text("utf-8")
        assert f'"video": "{n}.webm"' in text  # each got the answer for its own video
    assert memory() - before < 300, "MiB more"


def memory():
    """Return the memory of this process, which the server shares, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
