"""WebVTT: a cue is an event, its text the label."""

from __future__ import annotations

import html
import re

from avplatform.data.adapters.table.events import STREAM_WORDS, Reading
from avplatform.data.adapters.table.readers.text import text_of

ARROW = "-->"
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
TAG = re.compile(r"<[^>]*>")
SCORE = re.compile(r"\s*\((0?\.\d+|0|1(?:\.0+)?|0\.\d+)\)$")


def read_vtt(reading: Reading) -> None:
    """Read the cues of the video of the file's own name; each line of a cue is one label.

    A voice that is called as a stream (`<v audio>`) is the event's stream, and a number in
    parentheses at the end its score, as in the timelines of this platform.
    """
    blocks = _blocks(text_of(reading))
    first = blocks[0][1][0] if blocks else ""
    if not re.match(r"WEBVTT(\s|$)", first):
        reading.fault(1, f"a WebVTT file begins with WEBVTT, not with '{first[:40]}'")
        return
    for begin, lines in blocks:
        at = next((n for n, line in enumerate(lines) if ARROW in line), None)
        if at is None:
            if not re.match(r"WEBVTT|NOTE|STYLE|REGION", lines[0]):
                reading.fault(begin, f"the cue '{lines[0][:40]}' has no times")
            continue
        onset, _, rest = lines[at].partition(ARROW)
        offset = (rest.split() or [""])[0]
        if at + 1 == len(lines):
            lines.append("")
        for text in lines[at + 1 :]:
            voice = VOICE.search(text)
            stream = voice[1].strip() if voice and voice[1].strip() in STREAM_WORDS else None
            label = TAG.sub("", text)
            score = SCORE.search(label)
            label = html.unescape(SCORE.sub("", label))
            cells = {"video": reading.file.stem, "onset": onset, "offset": offset, "label": label}
            reading.add(
                begin + at, {**cells, "stream": stream, "score": score[1] if score else None}
            )


def _blocks(text: str) -> list[tuple[int, list[str]]]:
    """Return the blocks between blank lines, each with the number of its first line."""
    blocks: list[tuple[int, list[str]]] = []
    open_block = False
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            open_block = False
        elif open_block:
            blocks[-1][1].append(line)
        else:
            blocks.append((number, [line]))
            open_block = True
    return blocks
