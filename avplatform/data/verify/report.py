"""The findings of a check of a store: errors, warnings and counts, as text and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass, field
from typing import Any

from avplatform.data.adapters.plan import LeftOut
from avplatform.data.importing.report import REPORT_FILE, by_clip, left_out_lines
from avplatform.models.errors import counted

WIDTH = 80
SHOWN = {"error": 20, "warning": 5}


@dataclass
class Finding:
    """An error or a warning; `row` is the clip's key, or None if it is about files or the store."""

    level: str
    kind: str
    text: str
    file: str = ""
    split: str = ""
    row: int | None = None
    clip_id: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the fields that say something, without the level."""
        return {n: v for n, v in vars(self).items() if n != "level" and v not in ("", None)}

    def line(self) -> str:
        """Return the place and the text of the finding."""
        where = [self.file] if self.file else []
        where += [] if self.row is None else [f"row {self.row}"]
        where += [f"clip {self.clip_id}"] if self.clip_id else []
        return f"{', '.join(where)}: {self.text}" if where else self.text


@dataclass(kw_only=True)
class VerifyReport:
    """The outcome of a check: findings, counts, and what the import of `source` left out."""

    path: str
    source: str = ""
    fast: bool = False
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors of the store."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are odd, but not errors of the store."""
        return [finding for finding in self.findings if finding.level == "warning"]

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings are allowed."""
        return not self.errors

    def error(self, kind: str, text: str, **where: Any) -> None:
        """Add an error."""
        self.findings.append(Finding("error", kind, text, **where))

    def warn(self, kind: str, text: str, **where: Any) -> None:
        """Add a warning."""
        self.findings.append(Finding("warning", kind, text, **where))

    def content(self) -> dict[str, Any]:
        """Return the whole report as plain values, with all findings."""
        return {
            "path": self.path,
            "ok": self.ok,
            "fast": self.fast,
            "errors": [finding.plain() for finding in self.errors],
            "warnings": [finding.plain() for finding in self.warnings],
            "counts": self.counts,
            "left_out": [dataclasses.asdict(item) for item in self.left_out],
        }

    def lines(self) -> list[str]:
        """Return the report as it is printed: the verdict, errors, warnings, counts, verdict."""
        out: list[str] = []
        for findings in (self.errors, self.warnings):
            kinds: dict[str, list[Finding]] = {}
            for finding in findings:
                kinds.setdefault(finding.kind, []).append(finding)
            for kind, found in kinds.items():
                out.append(
                    f"{found[0].level}: {kind}" + (f" ({len(found)})" if len(found) > 1 else "")
                )
                shown = SHOWN[found[0].level]
                for finding in found[:shown]:
                    out += wrapped(finding.line())
                if len(found) > shown:
                    out.append(f"  and {len(found) - shown} more (--json FILE lists all)")
        left_out = counted(len(by_clip(self.left_out)), "clip")
        if self.left_out:
            out.append(f"left out on import, and so not in this store: {left_out}")
            for line in left_out_lines(self.left_out, self.source, SHOWN["error"]):
                out += wrapped(line)
        width = max(map(len, self.counts), default=0)
        for name, text in self.counts.items():
            head, indent = f"{name:<{width}}  ", " " * (width + 2)
            # A word that is too long, such as a checksum, starts on its own line and is not cut.
            if max(map(len, text.split()), default=0) + len(head) > WIDTH:
                out += [head.rstrip(), *wrapped(text)]
            else:
                out += wrapped(text, head, indent) or [head.rstrip()]
        verdict = counted(len(self.errors), "error")
        if self.ok:
            whole = "all that is stored is right" if self.left_out else "all is as it should be"
            verdict = "sizes and footers are right" if self.fast else whole
        verdict += f", {counted(len(self.warnings), 'warning')}" if self.warnings else ""
        verdict += f"; {left_out} left out ({REPORT_FILE})" if self.left_out else ""
        return [verdict, *out, verdict]


def wrapped(text: str, first: str = "  ", others: str = "    ") -> list[str]:
    """Return an indented text in lines of at most 80 columns, without cutting words."""
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
