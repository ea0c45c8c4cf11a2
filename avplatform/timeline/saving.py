"""A timeline written to a file of any of its formats, or to a folder with all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import write_atomic
from avplatform.models.paths import URL, expanded
from avplatform.timeline.export import as_csv, as_eaf, as_json, as_vtt, write_exports
from avplatform.timeline.page import render_page, video_source
from avplatform.timeline.picture import picture

if TYPE_CHECKING:
    from avplatform.timeline.preview import Preview
    from avplatform.timeline.timeline import Timeline

SUFFIXES = (".json", ".csv", ".eaf", ".vtt", ".html", ".png")


def save(
    timeline: Timeline,
    path: str | Path,
    *,
    video: str | Path | None = None,
    preview: Preview | None = None,
    embed_video: bool = False,
    address: bool = True,
) -> Path:
    """Write a timeline; see `Timeline.save`."""
    out, named = expanded(path), video if video is not None else timeline.video
    source = None if not str(named) or URL.fullmatch(str(named)) else expanded(named)
    if embed_video and (source is None or not source.is_file()):
        raise UsageError(
            f"there is no video '{named}' to embed; give video, or leave out embed_video"
        )
    whole = not out.suffix or out.is_dir() or str(path).endswith(("/", os.sep))
    if not whole and out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{out} ends in '{out.suffix}'; a timeline is written as {', '.join(SUFFIXES)}, or as "
            'a folder, whose name has no suffix or ends in "/"'
        )

    def place(file: Path, *, embed: bool = False) -> str:
        if source is None or not (address or embed):
            return ""
        return video_source(source, file, embed=embed)

    def page(file: Path) -> str:
        return render_page(timeline, preview, source=place(file, embed=embed_video))

    def folder() -> None:
        html, media = page(out / "timeline.html"), place(out / "events.eaf")
        write_exports(timeline, out, media=media)
        picture(timeline, out / "timeline.png", preview)
        write_atomic(out / "timeline.html", html)

    writers: dict[str, Callable[[], object]] = {
        ".json": lambda: write_atomic(out, as_json(timeline)),
        ".csv": lambda: write_atomic(out, as_csv(timeline)),
        ".eaf": lambda: write_atomic(out, as_eaf(timeline, media=place(out))),
        ".vtt": lambda: write_atomic(out, as_vtt(timeline)),
        ".html": lambda: write_atomic(out, page(out)),
        ".png": lambda: picture(timeline, out, preview),
    }
    try:
        (folder if whole else writers[out.suffix.lower()])()
    except OSError as error:
        what = f"into {out}" if whole else str(out)
        raise DataError(f"cannot write {what}: {error.strerror or error}") from None
    return out
