"""Draw the pictures of the README, as a browser shows them. Needs Chromium and PyAV.

The page of a rendered clip: the clip and its events are synthetic, two lamps that light up and two
tones that sound, whose timeline is written by hand; no model was asked.

    python -m benchmarks.docs_pictures docs/timeline.png

What a command printed; here the figures of a run on the demo data, which are synthetic.

    avplatform train --task avel --decoder leap --max-steps 100 --output-dir runs/ave-leap
    COLUMNS=110 avplatform eval runs/ave-leap --bootstrap 1000 > printed.txt
    python -m benchmarks.docs_pictures docs/results.png printed.txt
"""

from __future__ import annotations

import html
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

import av
import numpy as np
from PIL import Image

from avplatform.features.media import probe
from avplatform.timeline.event import events_of
from avplatform.timeline.page import render_page, video_source
from avplatform.timeline.preview import preview
from avplatform.timeline.timeline import Timeline

SECONDS, FPS, RATE = 10, 8, 48_000
LAMPS = {"red lamp": ((200, 30, 30), 1, 6), "blue lamp": ((40, 60, 200), 5, 9)}
TONES = {"low tone": (300, 2, 7), "high tone": (2500, 6, 9)}
SIZE = (1180, 990)
"""Width and height of the picture of the page."""
MOMENT = 6.5
"""The second of the clip that the player shows."""
LETTER = (8, 17)
"""Width and height of a letter of the printed results."""


def render(file: Path) -> Path:
    """Write the clip: lamps are seen and tones are heard between their seconds."""
    with av.open(str(file), "w") as box:
        pictures = box.add_stream("libvpx", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 320, 180, "yuv420p"
        sound = box.add_stream("libopus", rate=RATE, layout="mono")
        for n in range(SECONDS * FPS):
            image = np.full((180, 320, 3), 45, np.uint8)
            for place, (colour, onset, offset) in enumerate(LAMPS.values()):
                left = 40 + 140 * place
                image[50:130, left : left + 100] = colour if onset <= n / FPS < offset else 70
            box.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        time = np.arange(SECONDS * RATE) / RATE
        wave = sum(
            0.3 * np.sin(2 * np.pi * hertz * time) * ((time >= onset) & (time < offset))
            for hertz, onset, offset in TONES.values()
        )
        for start in range(0, len(time), RATE):
            part = np.asarray(wave, np.float32)[None, start : start + RATE]
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
            frame.sample_rate, frame.pts = RATE, start
            box.mux(sound.encode(frame))
        box.mux(pictures.encode()), box.mux(sound.encode())
    return file


def timeline(video: Path) -> Timeline:
    """Return the timeline of the clip: what was rendered, with made-up probabilities."""
    labels, rng = [*LAMPS, *TONES], np.random.default_rng(0)
    found, scores = {}, {}
    for stream, spans in (("visual", LAMPS), ("audio", TONES)):
        maps = np.zeros((SECONDS, len(labels)), bool)
        for label, (_, onset, offset) in spans.items():
            maps[onset:offset, labels.index(label)] = True
        noise = rng.uniform(0, 0.2, maps.shape)
        found[stream], scores[stream] = maps, np.where(maps, 1 - noise, noise)
    return Timeline(
        video=str(video),
        duration=float(SECONDS),
        model="an example, rendered and labelled by a script",
        task="avvp",
        decoder="leap",
        labels=labels,
        events=events_of(found, scores, labels, duration=float(SECONDS)),
        found=found,
        scores=scores,
        about={"has_audio": True, "has_video": True},
    )


def printed(file: Path) -> tuple[str, tuple[int, int]]:
    """Return a page with what a command printed, and its width and height."""
    lines = file.read_text(encoding="utf-8").splitlines()
    size = (LETTER[0] * max(map(len, lines)) + 40, LETTER[1] * len(lines) + 40)
    style = "margin:20px;font:13px/17px 'DejaVu Sans Mono',monospace"
    return f"<meta charset='utf-8'><pre style=\"{style}\">{html.escape(chr(10).join(lines))}", size


def screenshot(page: Path, out: Path, size: tuple[int, int]) -> None:
    """Write what a browser shows of a page, in few colours."""
    shot = page.with_suffix(".png")
    program = which("chromium") or which("google-chrome") or "chromium"
    flags = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
    flags += [f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=4000"]
    command = [program, *flags, f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    Image.open(shot).convert("RGB").quantize(64).save(out, optimize=True)
    print(f"wrote {out}: {out.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Write the picture to the path that the command line names."""
    out, text_file = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with tempfile.TemporaryDirectory() as place:
        page, size = Path(place) / "page.html", SIZE
        if text_file:
            text, size = printed(Path(text_file[0]))
        else:
            video = render(Path(place) / "rendered.webm")
            source = f"{video_source(video, page, embed=False)}#t={MOMENT}"
            text = render_page(timeline(video), preview(video, probe(video)), source=source)
        page.write_text(text, encoding="utf-8")
        screenshot(page, out, size)


if __name__ == "__main__":
    main()
