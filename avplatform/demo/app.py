"""The page of the demo, and its server.

Uploads, results and gradio's copies lie in one folder, the only one whose files are served.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avplatform.base.console import readable
from avplatform.base.stopping import StopSignals
from avplatform.demo.clips import write_clips
from avplatform.demo.models import LABELS, Models
from avplatform.models.errors import AVError, UsageError
from avplatform.timeline.page import render_page
from avplatform.timeline.preview import Preview
from avplatform.timeline.timeline import Timeline

KEPT_SECONDS = 3600
"""Uploads and results are deleted after this time, and when the demo ends."""
TITLE = "avplatform: what is heard, what is seen, and when"
NOBODY, OWN = "none", "the model's own"
THRESHOLDS = (OWN, "0.5", "0.3", "0.1", "0.05", "0.01")
FILES = ("events.json", "events.csv", "events.eaf", "events.vtt", "timeline.html", "timeline.png")
"""The files of `avplatform predict`, as a visitor may save them."""
FRAME = (
    '<iframe class="timeline" title="Timeline by {model}" srcdoc="{page}" '
    'onload="showTimeline(this)" style="width: 100%; height: 40rem; border: 0"></iframe>'
)
# Gradio cuts a video with a program that it fetches from another host.
LOOK = """
video { max-height: 18rem; }
button:is([title^="Trim video"], [aria-label^="Trim video"]) { display: none; }
"""
SCRIPT = """<script>
// The height of a timeline follows its content. Two timelines play together, one without sound.
const showTimeline = (frame) => {
  const inside = frame.contentDocument, video = inside.getElementById("video");
  const fit = () => { frame.style.height = inside.body.offsetHeight + "px"; };
  new ResizeObserver(fit).observe(inside.body);
  const along = (what) => document.querySelectorAll("iframe.timeline").forEach((other) => {
    const found = other !== frame && other.contentDocument?.getElementById("video");
    if (found) what(found);
  });
  video.addEventListener("play", () => along((other) => {
    if (!other.paused) return;
    video.muted = false;
    other.muted = true;
    other.currentTime = video.currentTime;
    other.play().catch(() => {});
  }));
  video.addEventListener("pause", () => along((other) => other.pause()));
  video.addEventListener("seeked", () => along((other) => {
    const now = video.currentTime;
    if (Math.abs(other.currentTime - now) > 0.2) other.currentTime = now;
  }));
};
</script>"""


@cache
def import_gradio() -> Any:
    """Return gradio, which reports nothing and keeps its files in a folder of this process.

    Raises:
        UsageError: gradio is not installed.
    """
    folder = tempfile.mkdtemp(prefix="avplatform-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_EXAMPLES_CACHE": str(Path(folder, "examples")),
    }
    try:
        import gradio
    except ImportError:
        raise UsageError(
            'the demo needs gradio 6 and PyAV: pip install "avplatform[demo,media]"'
        ) from None
    return gradio


def folder() -> Path:
    """Return the folder of uploads and results."""
    return Path(os.environ["GRADIO_TEMP_DIR"])


def build(models: Models, *, queue: int = 32) -> Any:
    """Return the page as gradio's Blocks.

    Args:
        models: the models to choose from.
        queue: videos that may wait; one is parsed at a time.
    """
    gr = import_gradio()

    def timeline(
        video: str | None,
        model: str,
        other: str,
        labels: str,
        threshold: str,
        progress: Any = gr.Progress(),
    ) -> list[Any]:
        """Find the events of a video: the page and the files of one or two models."""
        if not video:
            raise refusal("There is no video: upload one, record one, or pick an example.")
        file = Path(video)
        try:
            found, shown = models.timelines(
                file,
                [model] if other in (NOBODY, model) else [model, other],
                labels=[text.strip() for text in (labels or "").split(",") if text.strip()],
                threshold=None if threshold == OWN else float(threshold),
                on_progress=lambda share: progress(share, desc="reading the video"),
            )
            parts = [part for one in found for part in answer(one, shown, file)]
        except AVError as error:
            raise refusal(said(error, file)) from None
        except Exception as error:  # one strange file must not show a traceback
            print(f"{file.name}: {type(error).__name__}: {error}", file=sys.stderr)
            text = f"{file.name} could not be parsed ({type(error).__name__}); try another video."
            raise refusal(text) from None
        return parts if len(found) == 2 else parts + hidden()

    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(60, KEPT_SECONDS), fill_width=True
    ) as page:
        gr.Markdown(f"# {TITLE}\n\nUploads and results are deleted after an hour.")
        with gr.Row():
            video = gr.Video(
                label="Video",
                sources=["upload", "webcam"],
                webcam_options=gr.WebcamOptions(mirror=False),
                include_audio=True,
            )
            with gr.Column():
                model = gr.Dropdown(models.names, value=models.names[0], label="Model")
                other = gr.Dropdown(
                    [NOBODY, *models.names],
                    value=NOBODY,
                    label="Compare with",
                    visible=len(models.names) > 1,
                )
                labels = gr.Textbox(
                    label="Labels to look for",
                    info="separated by commas; without any, the classes of the model's training",
                    placeholder=", ".join(LABELS),
                    max_length=2000,
                    visible=models.open_labels,
                )
                threshold = gr.Dropdown(list(THRESHOLDS), value=OWN, label="Threshold")
                go = gr.Button("Find events", variant="primary")
        gr.Examples(
            [[str(clip), ", ".join(LABELS)] for clip in example_clips()],
            [video, labels] if models.open_labels else [video],
            label="Clips that were drawn by code (synthetic)",
            cache_examples=False,
        )
        results: list[Any] = []
        for _ in range(2):
            with gr.Row():
                files = [gr.DownloadButton(name, size="sm", visible=False) for name in FILES]
            results += [*files, gr.HTML(visible=False)]
        go.click(
            timeline,
            [video, model, other, labels, threshold],
            results,
            api_name="timeline",
            concurrency_limit=1,
        )
    return page.queue(max_size=queue, api_open=False)


def example_clips() -> list[Path]:
    """Draw the clips into the folder of this process, once."""
    place = folder() / "clips"
    if not place.is_dir():
        place.mkdir()
        return write_clips(place)
    return sorted(place.iterdir())


def answer(timeline: Timeline, shown: Preview, video: Path) -> list[Any]:
    """Return the files and the page of a timeline, which are those of `avplatform predict`."""
    gr = import_gradio()
    out = Path(tempfile.mkdtemp(dir=folder()))
    timeline.save(f"{out}/", video=out / video.name, preview=shown)
    source = f"gradio_api/file={quote(video.as_posix())}"
    page = render_page(timeline, shown, source=source, media=quote(video.name))
    frame = FRAME.format(model=escape(timeline.model), page=escape(page))
    buttons = [gr.DownloadButton(name, value=str(out / name), visible=True) for name in FILES]
    return [*buttons, gr.HTML(frame, visible=True)]


def hidden() -> list[Any]:
    """Return what takes the place of a second timeline."""
    gr = import_gradio()
    return [*(gr.DownloadButton(name, visible=False) for name in FILES), gr.HTML("", visible=False)]


def refusal(text: str) -> Exception:
    """Return the error that shows a sentence on the page until it is closed."""
    kind = import_gradio().Error
    error: Exception = kind(escape(text), duration=None, title="Not done", print_exception=False)
    return error


def said(error: AVError, video: Path) -> str:
    """Return what a visitor reads of an error: no folders of this machine, and no flags."""
    text = readable(str(error).replace(f"{video.parent}{os.sep}", ""))
    return re.sub(r" \(--[\w-]+\)", "", text).rstrip(".") + "."


def start(
    page: Any, *, host: str = "127.0.0.1", port: int | None = None, max_megabytes: int = 200
) -> str:
    """Start the server and return its address; it runs until `page.close()`.

    Args:
        page: the page of `build`.
        host: the address to listen on.
        port: default: the first free one from 7860 on.
        max_megabytes: larger uploads are refused.

    Raises:
        UsageError: the port is taken, or the host is not an address of this machine.
    """
    try:  # gradio itself would try a hundred ports of a wrong host, five seconds each
        kind, _, _, _, place = socket.getaddrinfo(host.strip("[]"), 0)[0]
        with socket.socket(kind) as free:
            free.bind(place)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"cannot listen on {host} ({reason}); give an address of this machine as --host"
        ) from None
    local = "localhost,127.0.0.1,::1"  # the server asks itself whether it is up: not by a proxy
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), local)))
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inline=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            css=LOOK,
            head=SCRIPT,
            footer_links=[],
            run_history=False,
            max_file_size=max_megabytes * 2**20,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    except OSError:
        raise UsageError(
            f"cannot listen on {host}, port {port or '7860 to 7959'}: it is in use or not allowed; "
            "give another --port"
        ) from None
    return str(address)


def serve_until_stopped(page: Any) -> None:
    """Return after Ctrl-C or SIGTERM, when the server has ended."""
    with StopSignals() as stop:
        while not stop.received:
            time.sleep(0.2)
    page.close(verbose=False)
