"""The folders of parsed videos: one with all files per video, and the summary of all of them.

The videos and the folders may be on this machine or on an object store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from avplatform.base.console import readable
from avplatform.base.files import write_json
from avplatform.base.places import PlaceError, Remote, at_hand, stopping
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.timeline.event import NEVER_TRAINED
from avplatform.timeline.preview import preview
from avplatform.timeline.several import Several

if TYPE_CHECKING:
    from avplatform.timeline.pipeline import Pipeline
    from avplatform.timeline.timeline import Timeline

FILES = ("events.json", "events.csv", "events.eaf", "events.vtt", "timeline.png", "timeline.html")
SUMMARY = "summary.json"


@dataclass(kw_only=True, frozen=True)
class Job:
    """A video to parse: its key in the notes, its place, and the name of its output folder."""

    key: str
    video: Path | Remote
    folder: str


class Writer:
    """Parses videos, and writes the files of each into its folder.

    A remote video is fetched into a temporary folder, and removed when its files are written. Files
    for an object store are written here and copied, events.json as the last one.

    Args:
        parse: the pipeline.
        out: the folder of the folders, or its address.
        embed_video: put the videos into the pages.
    """

    def __init__(self, parse: Pipeline, out: Path | Remote, *, embed_video: bool = False) -> None:
        self.parse, self.out, self.embed_video = parse, out, embed_video

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, str | Exception]]:
        """Yield each job with JSON: its entry of the summary, and the lines to show; or its error.

        A `StoppedError` says that an object store does not answer; others are of the video.
        """
        copies = {job.key: ExitStack() for job in jobs}

        def opened(job: Job) -> Path:
            return copies[job.key].enter_context(at_hand(job.video))

        timelines = Several(self.parse, jobs, opened=opened)
        try:
            for job in jobs:
                found: str | Exception
                try:
                    with stopping(), copies[job.key]:
                        timeline = next(timelines)
                        assert timelines.info is not None
                        found = json.dumps(self._write(timeline, timelines.info, job))
                except Exception as error:
                    found = error
                yield job, found
        finally:
            for copy in copies.values():
                copy.close()

    def _write(self, timeline: Timeline, info: Any, job: Job) -> dict[str, Any]:
        """Write the files of a video.

        Raises:
            DataError: the video cannot be read any more, or is too large to embed, or its files
                cannot be written.
            PlaceError: the object store does not answer.
        """
        video, place = Path(info.path), self.out / job.folder
        timeline.video = readable(str(job.video))
        shown = preview(video, info, self.parse.config.limits)
        with nullcontext(place) if isinstance(place, Path) else TemporaryDirectory() as folder:
            try:
                timeline.save(
                    f"{folder}/",
                    video=video,
                    preview=shown,
                    embed_video=self.embed_video,
                    address=not isinstance(place, Remote) and not isinstance(job.video, Remote),
                )
            except UsageError as error:  # it is too large to embed
                raise DataError(str(error)) from None
            if isinstance(place, Remote):
                for name in reversed(FILES):
                    (place / name).write(Path(folder) / name)
        entry = {"video": timeline.video, "folder": job.folder, "events": len(timeline.events)}
        entry |= {"never_trained_on": timeline.never_trained_on, "notes": timeline.notes}
        lines = [line_about(timeline, place / "timeline.html")]
        if timeline.notes and not timeline.events:
            lines.append(f"  {timeline.notes[-1]}")
        return {"entry": entry, "lines": lines}


def line_about(timeline: Timeline, page: Path | Remote) -> str:
    """Return one line that says what was found in a video."""
    found = [event.stream for event in timeline.events]
    counts = [f"{stream} {found.count(stream)}" for stream in timeline.streams]
    kinds = {"sound": "has_audio", "pictures": "has_video"}
    lacks = [kind for kind, key in kinds.items() if timeline.about.get(key) is False]
    said = f"; the file has no {lacks[0]}" if lacks else ""
    if timeline.never_trained_on:
        said += f"; {NEVER_TRAINED}: {', '.join(timeline.never_trained_on)}"
    return (
        f"{timeline.video}: {counted(len(timeline.events), 'event')} "
        f"({', '.join(counts)}){said} -> {page}"
    )


def written_folders(out: Path | Remote) -> set[str]:
    """Return the names of the folders that hold the events of a video."""
    if isinstance(out, Remote):
        parts = [file.parts_after(out) for file in out.files()]
    else:
        parts = [file.relative_to(out).parts for file in out.glob(f"*/{FILES[0]}")]
    return {folder for folder, *names in parts if names == [FILES[0]]}


def write_summary(
    out: Path | Remote, done: list[dict[str, Any]], failed: list[tuple[str, str]]
) -> None:
    """Write summary.json: the videos that were done, with folders, and the others, with reasons.

    Videos of earlier calls stay in it while their folders are there.

    Raises:
        DataError: it cannot be written.
    """
    file = out / SUMMARY
    now, there = {entry["folder"] for entry in done}, written_folders(out)
    kept = [
        entry for entry in _earlier(file) if entry["folder"] not in now and entry["folder"] in there
    ]
    content = {
        "done": [*kept, *done],
        "not_done": [{"video": readable(video), "reason": reason} for video, reason in failed],
    }
    try:
        write_json(file, content)
    except OSError as error:
        raise DataError(f"cannot write {file}: {error.strerror}") from None


def _earlier(file: Path | Remote) -> list[dict[str, Any]]:
    """Return the videos that an earlier summary.json lists as done."""
    try:
        entries = json.loads(file.read_bytes())["done"]
        return [entry for entry in entries if isinstance(entry["folder"], str)]
    except PlaceError:
        raise
    except (OSError, ValueError, KeyError, TypeError):  # among them the DataError of no object
        return []
