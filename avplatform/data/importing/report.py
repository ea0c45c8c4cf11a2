"""The report of an import: import_report.json, the lines of the card, and what is printed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.plan import LeftOut
from avplatform.models.errors import counted

REPORT_FILE = "import_report.json"
LISTED_WHOLE = (
    "event of no length",
    "reversed event",
    "event beyond the clip",
    "row given twice",
    "class named twice",
    "clip outside all splits",
    "video id of several clips",
    "video id in several splits",
)
EXAMPLES = 3
CARD_CLIPS = 20


@dataclass(kw_only=True)
class ImportReport:
    """The outcome of an import.

    The last `in_no_split` entries of `left_out` are clips in no split: `clips` does not count them,
    and their features are not at fault. `bytes_read` is the size of the stored clips' features in
    the official files, `bytes_written` that of the shards.
    """

    dataset: str
    source: str
    options: dict[str, Any]
    clips: dict[str, int]
    stored: dict[str, int]
    left_out: list[LeftOut] = field(default_factory=list)
    in_no_split: int = 0
    defects: list[Defect] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    bytes_written: int = 0
    written: bool = False

    @property
    def clips_left_out(self) -> int:
        """Number of clips of the splits that are not stored; `bad` may list one several times."""
        return sum(self.clips.values()) - sum(self.stored.values())

    @property
    def bad(self) -> list[LeftOut]:
        """The clips of the splits that are left out because a feature is missing or unusable."""
        return self.left_out[: len(self.left_out) - self.in_no_split]

    def to_json(self) -> str:
        """Return the text of import_report.json."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    def defect_lines(self) -> list[str]:
        """Return one line per kind of defect and file.

        A line names all cases of the kinds in LISTED_WHOLE, and a few cases of the other kinds.
        """
        groups: dict[tuple[str, str], list[Defect]] = {}
        for defect in self.defects:
            folder, _, name = defect.file.rpartition("/")
            file = folder if folder and name.endswith(".npy") else defect.file
            groups.setdefault((defect.kind, file), []).append(defect)
        lines = []
        for (kind, file), found in groups.items():
            shown = found if kind in LISTED_WHOLE else found[:EXAMPLES]
            texts = [
                " ".join(d.text.split())
                + (f" (line {d.line})" if d.line and not file.endswith(".h5") else "")
                for d in shown
            ]
            rest = len(found) - len(shown)
            more = f"; and {rest} more in {REPORT_FILE}" if rest else ""
            lines.append(f"{kind}, {file}: {counted(len(found), 'case')}: {'; '.join(texts)}{more}")
        return lines

    def left_out_lines(self, limit: int = CARD_CLIPS) -> list[str]:
        """Return one line for each of at most `limit` clips left out because of a bad feature."""
        return left_out_lines(self.bad, self.source, limit)

    def provenance(self) -> dict[str, Any]:
        """Return the part of the report that goes into the store's manifest."""
        out: dict[str, Any] = {**self.sources, "defects": self.defect_lines()}
        if self.bad:
            counts = {
                split: count - self.stored.get(split, 0) for split, count in self.clips.items()
            }
            out["left_out"] = {"clips": counts, "examples": self.left_out_lines()}
        return out

    def summary(self) -> list[str]:
        """Return the lines that are printed at the end of an import."""
        lines = list(self.remarks)
        if self.in_no_split:
            verbs = ("stands", "is") if self.in_no_split == 1 else ("stand", "are")
            clips = f"{counted(self.in_no_split, 'clip')} {verbs[0]}"
            lines.append(f"{clips} in no split and {verbs[1]} left out; {REPORT_FILE} lists them")
        if self.bad:
            share = f"{self.clips_left_out:,} of {counted(sum(self.clips.values()), 'clip')}"
            lines += [f"left out {share}:" if self.written else f"would be left out, {share}:"]
            limit = CARD_CLIPS if self.written else 200
            lines += [f"  {line}" for line in self.left_out_lines(limit)]
        lines += [f"defect: {kind}: {n}" for kind, n in count_kinds(self.defects).items()]
        if self.written and self.bytes_read and self.bytes_written:
            ratio = self.bytes_read / self.bytes_written
            sizes = (
                f"{self.bytes_read / 1e6:,.1f} MB of features read, "
                f"{self.bytes_written / 1e6:,.1f} MB written"
            )
            lines.append(f"{sizes}: 1/{ratio:.1f}")
        return lines


def left_out_lines(items: Sequence[LeftOut], source: str, limit: int) -> list[str]:
    """Return one line per clip, whatever the number of its bad files.

    Paths are shown relative to the source.
    """
    clips = by_clip(items)
    lines = []
    for first, *others in clips[:limit]:
        more = f", and {counted(len(others), 'more file')}" if others else ""
        lines.append(f"{first.clip_id}: {_within(source, first.file)} {first.reason}{more}")
    if len(clips) > limit:
        lines.append(f"and {counted(len(clips) - limit, 'more clip')} in {REPORT_FILE}")
    return lines


def _within(source: str, file: str) -> str:
    """Return a path relative to the source, which may itself be relative to any folder above it."""
    parts = Path(source).parts
    for start in range(len(parts)):
        place = f"{Path(*parts[start:])}/"
        if file.startswith(place):
            return file.removeprefix(place)
    return "/".join(file.rsplit("/", 3)[-3:]) if file.startswith("/") else file


def by_clip(items: Sequence[LeftOut]) -> list[list[LeftOut]]:
    """Group left-out items by clip; as ids may repeat, two rows of an h5 file are two clips."""
    clips: dict[tuple[str, str], list[LeftOut]] = {}
    for item in items:
        row = re.match(r"row \d+", item.reason)
        clips.setdefault((item.clip_id, row[0] if row else ""), []).append(item)
    return list(clips.values())


def count_kinds(defects: Sequence[Defect]) -> dict[str, int]:
    """Return the number of defects of each kind."""
    return Counter(defect.kind for defect in defects)


def without_places(text: str) -> str:
    """Return import_report.json without local paths, so that it can be published.

    The source folder becomes ".", and other given folders are reduced to their last name.
    """
    content = json.loads(text)
    places = {str(content.get("source", "")): "."}
    places |= {
        value: Path(value).name
        for value in content.get("options", {}).values()
        if isinstance(value, str)
    }

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, str):
            for place in sorted(filter(os.path.isabs, places), key=len, reverse=True):
                value = value.replace(place, places[place])
        return value

    return json.dumps(clean(content), indent=1, ensure_ascii=False) + "\n"
