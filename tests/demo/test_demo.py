"""The demo without a browser: answers, refusals, and what is readable and what is left."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from avplatform.cli import main
from avplatform.commands.demo import DemoOptions
from avplatform.demo import app
from avplatform.demo.clips import CLIPS, SECONDS
from avplatform.exported import runtime
from avplatform.features.media import probe, read_waveform
from avplatform.models.errors import UsageError
from avplatform.timeline.preview import Preview
from tests.import_graph import imports, modules
from tests.test_structure import clean_environment
from tests.timeline.examples import example, write_clip

ROOT = Path(__file__).resolve().parents[2]
EXPORTS = app.FILES[:4]


@pytest.fixture
def uploaded(demo, clip):
    return demo.upload(clip.read_bytes()).json()[0]


def parts(answer):
    """Return the page and the paths of the files of one timeline of an answer."""
    *files, page = [part["value"] for part in answer]
    return page, {file["orig_name"]: Path(file["path"]) for file in files}


def test_a_video_is_answered_with_the_page_and_the_files_of_predict(
    demo, clip, uploaded, tmp_path, monkeypatch, capsys
):
    answer = demo.ask(uploaded)
    assert [part["visible"] for part in answer] == [True] * 7 + [False] * 7
    page, files = parts(answer[:7])
    assert list(files) == list(app.FILES)
    (tmp_path / "clip.webm").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    command = ["predict", "clip.webm", "--model", demo.models.names[0], "--out", "."]
    assert main([*command, "--cpu", "--threads", "1"]) == 0
    for name in (*EXPORTS, "timeline.png"):
        theirs = (tmp_path / "clip" / name).read_bytes()
        # Predict writes into a folder of its own; here the video lies beside the file.
        assert files[name].read_bytes() == theirs.replace(b"../clip.webm", b"clip.webm"), name
    inner = unescape(re.search(r'srcdoc="([^"]*)"', page)[1])
    saved = (tmp_path / "clip" / "timeline.html").read_text(encoding="utf-8")
    source = re.search(r'<video[^>]* src="([^"]+)"', inner)[1]
    assert httpx.get(demo.address + source).content == clip.read_bytes()
    same = saved.replace("../clip.webm", "clip.webm")
    data = re.compile(r'"media":"[^"]*"|src="[^"]*"|"missing":"[^"]*"')
    assert data.sub("", inner) == data.sub("", same)


def test_labels_and_a_threshold_are_those_of_the_visitor(demo, uploaded):
    page, files = parts(demo.ask(uploaded, labels=" train horn,, dog ", threshold="0.01")[:7])
    found = files["events.csv"].read_text(encoding="utf-8")
    assert "train horn" in found and "Dog" not in found
    assert "given by the user" in page


def test_models_are_opened_once_however_many_labels_are_asked_for(demo, uploaded, monkeypatch):
    name = demo.models.names[0]
    model = demo.models._opened(name, (), None).model
    monkeypatch.setattr(runtime, "model_folder", lambda *_: pytest.fail("opened again"))
    for labels in ("dog", "car", "cat", "train horn"):
        _, files = parts(demo.ask(uploaded, labels=labels, threshold="0.01")[:7])
        assert labels in files["events.csv"].read_text(encoding="utf-8")
        assert demo.models._opened(name, (labels,), 0.01).model is model


def test_two_models_read_the_video_once(demo, uploaded, monkeypatch):
    first, second = demo.models.names
    calls = []
    extractor = demo.models._opened(first, (), None).extractor
    right = type(extractor).clip
    monkeypatch.setattr(type(extractor), "clip", lambda *a, **k: calls.append(a) or right(*a, **k))
    answer = demo.ask(uploaded, other=second)
    assert all(part["visible"] for part in answer) and len(answer) == 14 and len(calls) == 1
    for name, page in zip((first, second), (answer[6], answer[13]), strict=True):
        assert f'title="Timeline by {name}"' in page["value"]
    assert demo.ask(uploaded, other=first)[13]["visible"] is False  # with itself


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_labels_and_names_cannot_leave_the_page(demo, tmp_path):
    bad = 'dog </iframe><script>alert(1)</script>" onload="x\' ${1+1} {{7*7}}'
    timeline = example("x.webm", labels=["Dog", "Speech", "Car"])
    timeline.events = [replace(event, label=bad) for event in timeline.events]
    timeline.labels, timeline.model, timeline.notes = [bad, "Speech", "Car"], bad, [bad]
    before = demo.files()
    *_, page = app.answer(timeline, Preview(), tmp_path / "x.webm")
    for file in demo.files() - before:  # gradio does not know of them: no visitor asked
        file.unlink()
    ((tag, attributes),) = Elements(page.value).found
    assert tag == "iframe" and set(attributes) == {"class", "title", "srcdoc", "onload", "style"}
    assert attributes["onload"] == "showTimeline(this)" and bad in attributes["title"]
    inside = [tag for tag, _ in Elements(attributes["srcdoc"]).found]
    assert inside.count("script") == 2 and "iframe" not in inside


def cut(content):
    return content[: len(content) // 3]


def zipped(content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("clip.webm", content)
    return out.getvalue()


def png(content):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 48)).save(out, "PNG")
    return out.getvalue()


def endless(content):
    """Return the clip with a duration of eleven days in its header."""
    at = content.index(b"\x44\x89\x88") + 3
    return content[:at] + np.array([1e9], ">f8").tobytes() + content[at + 8 :]


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
HOSTILE = {
    "text": ("text.mp4", lambda c: b"this is not a video", "text.mp4"),
    "empty": ("empty.mp4", lambda c: b"", "empty.mp4"),
    "cut": ("cut.webm", lambda c: c[:200], "cut.webm"),
    "zip": ("clip.zip", zipped, "clip.zip"),
    "picture": ("still.mp4", png, "still.mp4 is no video or sound"),
    "endless": ("endless.webm", endless, "endless.webm"),
    "page": ("page.html", lambda c: b"<html><video src='/etc/passwd'></html>", "page.html"),
    "playlist": ("list.m3u8", lambda c: PLAYLIST.encode(), "list.m3u8"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_upload_is_refused_in_a_sentence(demo, clip, capfd, kind):
    name, made, said = HOSTILE[kind]
    sent = demo.upload(made(clip.read_bytes()), name)
    sentence = demo.ask(sent.json()[0])
    assert isinstance(sentence, str) and said in sentence, sentence
    assert re.fullmatch(r"[^<>\n]{20,300}\.", sentence)
    assert str(demo.folder) not in sentence
    told = "".join(capfd.readouterr())
    assert "Traceback" not in told


def test_a_file_that_is_too_large_is_refused_while_it_is_sent(demo):
    before = demo.files()
    sent = demo.upload(b"\0" * (2**20 + 1), "large.mp4")
    assert sent.status_code == 413 and "maximum allowed size" in sent.text
    assert demo.files() == before


def test_a_name_with_folders_loses_them(demo, clip):
    path = demo.upload(clip.read_bytes(), "../../../tmp/evil.webm").json()[0]
    assert Path(path).parent.parent == demo.folder and Path(path).name == "evil.webm"
    page, files = parts(demo.ask(path)[:7])
    assert '"video": "evil.webm"' in files["events.json"].read_text(encoding="utf-8")
    assert str(demo.folder) not in "".join(files[name].read_text("utf-8") for name in EXPORTS)


def test_a_file_without_pictures_is_parsed_and_says_so(demo, tmp_path):
    sound = write_clip(tmp_path / "sound.mp4", seconds=2.0, video=False, sound="aac")
    page, _ = parts(demo.ask(demo.upload(sound.read_bytes(), "sound.mp4").json()[0])[:7])
    assert "The file has no pictures" in page


def test_without_a_video_or_with_wrong_labels_a_sentence_says_so(demo, uploaded):
    assert "There is no video" in demo.ask(None)
    assert "'dog' is given twice" in unescape(demo.ask(uploaded, labels="dog, dog"))
    closed = demo.ask(uploaded, other=demo.models.names[1], labels="dog")
    assert "mmil: " in closed and "cannot look for other labels" in closed


def test_an_unforeseen_error_is_a_sentence_too(demo, uploaded, monkeypatch, capfd):
    def fail(*args, **kwargs):
        raise RuntimeError(f"a strange thing in {demo.folder}")

    monkeypatch.setattr(demo.models, "timelines", fail)
    said = demo.ask(uploaded)
    assert said == "clip.webm could not be parsed (RuntimeError); try another video."
    told = capfd.readouterr()
    assert "a strange thing" in told.err and "Traceback" not in told.err


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        str(ROOT / "pyproject.toml"),
        "{folder}/../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "pyproject.toml",
        "{folder}",
        "file:///etc/passwd",
    ],
)
def test_no_file_outside_of_the_folder_is_served(demo, path):
    for way in ("file=", "file/", "proxy=file://"):
        answer = httpx.get(f"{demo.address}gradio_api/{way}{path.format(folder=demo.folder)}")
        assert answer.status_code in (400, 403, 404), answer.text
        assert "root:" not in answer.text and "[project]" not in answer.text


def test_a_path_that_was_not_uploaded_is_not_parsed(demo, clip, capfd):
    before = demo.files()
    for path in ("/etc/passwd", str(clip), f"{demo.folder}/../{clip.name}", "http://127.0.0.1:9/x"):
        assert not isinstance(demo.ask(path), list)
    assert demo.files() == before


def test_the_queue_is_bounded_and_has_no_side_door(demo, monkeypatch):
    assert demo.page._queue.max_size == 32
    (fn,) = [fn for fn in demo.page.fns.values() if fn.api_name == "timeline"]
    assert fn.concurrency_limit == 1
    monkeypatch.setattr(demo.page._queue, "max_size", 0)
    sent = httpx.post(f"{demo.address}gradio_api/call/timeline", json={"data": [None] * 5})
    assert sent.status_code == 503 and "Queue is full" in sent.text
    aside = httpx.post(f"{demo.address}gradio_api/run/timeline", json={"data": [None] * 5})
    assert aside.status_code in (401, 404)


def test_uploads_and_results_are_deleted_when_their_time_is_over(demo, uploaded):
    from gradio.route_utils import delete_files_created_by_app

    assert demo.page.delete_cache == (60, app.KEPT_SECONDS)
    demo.ask(uploaded)
    assert demo.files()
    delete_files_created_by_app(demo.page, age=0)
    assert not demo.files()
    assert all(file.is_file() for file in demo.page.at_first)


def test_nothing_is_reported_or_fetched_from_elsewhere(demo):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert demo.page.analytics_enabled is False and demo.page.share is False
    text = httpx.get(demo.address).text + httpx.get(f"{demo.address}theme.css").text
    loaded = re.findall(
        r"(?:<(?:script|link)[^>]*(?:src|href)=|url\()[\"']?(https?://[^\"')]+)", text
    )
    assert [place for place in loaded if not place.startswith(demo.address)] == []


def test_it_listens_on_this_machine_only_and_a_taken_port_is_said(demo):
    assert DemoOptions().host == demo.page.server.config.host == "127.0.0.1"
    assert not hasattr(DemoOptions(), "share") and demo.page.share_url is None
    port = int(demo.address.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}"):
        app.start(app.build(demo.models), port=port)
    for host in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(UsageError, match="give an address of this machine"):
            app.start(demo.page, host=host)


@pytest.mark.parametrize("flags", [["--port", "70000"], ["--queue", "0"]])
def test_wrong_numbers_are_refused_before_anything_is_opened(flags, capsys):
    assert main(["demo", "somewhere", *flags]) == 2
    assert f"{flags[0][2:]} is {flags[1]}" in capsys.readouterr().err


def test_the_clips_hold_what_they_say(demo):
    clips = app.example_clips()
    assert [clip.stem for clip in clips] == sorted(CLIPS)
    for clip in clips:
        info = probe(clip)
        assert info.duration == pytest.approx(SECONDS, abs=0.1) and info.has_audio
    loud = np.abs(read_waveform(clips[1], 8000)).reshape(10, -1).mean(axis=1)
    assert (loud[:4] > 0.05).all() and (loud[5:] < 0.01).all()  # the siren
    with av.open(str(clips[1])) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    lit = [frame[:30, :, 1].max() > 150 for frame in frames[5::10]]
    assert lit == [False] * 3 + [True] * 5 + [False] * 2  # the green lamp


BLOCKED = """
import sys
sys.modules["gradio"] = None
from avplatform.cli import main
raise SystemExit(main(["demo", "somewhere"]))
"""
PARTS = """
import sys, avplatform.demo.app, avplatform.commands.demo, avplatform.commands.predict
sys.exit("gradio" in sys.modules)
"""


def test_without_gradio_one_line_says_what_to_install(tmp_path):
    done = python("-c", BLOCKED, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr
        == 'error: the demo needs gradio 6 and PyAV: pip install "avplatform[demo,media]"\n'
    )


def test_gradio_is_imported_by_the_demo_alone_and_only_when_it_starts(tmp_path):
    importing = [
        name
        for name, file in modules(ROOT).items()
        if any(m.split(".")[0] == "gradio" for m, _ in imports(file.read_text(encoding="utf-8")))
    ]
    assert importing == ["avplatform.demo.app"]
    assert python("-c", PARTS, cwd=tmp_path).returncode == 0


def python(*args, **options):
    env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=env, **options
    )


SERVER = """
import sys
from tests.timeline.test_predict import Loudness
from avplatform.cli import main
module.extractor_of_model = lambda *_, **__: Loudness()
raise SystemExit(main(["demo", sys.argv[1], "--port", sys.argv[2], "--cpu", "--threads", "1"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped_and_leaves_nothing(saved, clip, tmp_path, signum):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**clean_environment(), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    env |= {"HF_HUB_OFFLINE": "1", "HTTP_PROXY": "http://127.0.0.1:9"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, saved[0], str(port)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    line = server.stdout.readline()
    assert f"is at http://127.0.0.1:{port}/; Ctrl-C ends it" in line, server.stderr.read()
    sent = httpx.post(
        f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": ("a.webm", clip.read_bytes())}
    )
    assert Path(sent.json()[0]).is_file() and str(tmp_path) in sent.json()[0]
    end = time.monotonic() + 60
    server.send_signal(signum)
    out, err = server.communicate(timeout=60)
    assert server.returncode == 0 and time.monotonic() < end, err
    assert err == "" and not [file for file in tmp_path.rglob("*") if file.is_file()]
