"""Write page.md, page.html (a single file) and page.json, which holds each number's sources."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.base.files import write_json
from avplatform.evaluation.markdown import markdown_row
from avplatform.models.files import write_atomic
from avplatform.reproduce.figures import ENOUGH, SPREADS, Figure
from avplatform.reproduce.tables import Group, Line, Section

IN_HTML = {"spread": " <small>± {}</small>", "difference": '<br><span class="{name}">{} {}</span>'}
IN_MARKDOWN = {"spread": " ± {}", "difference": " ({} {})"}
MARKS = {"inside": "✓", "outside": "✗", "n too small": "?"}
LEGEND = (
    "ours: mean ± standard deviation over n seeds; below it, ours minus the published figure, with "
    f"✓ if it lies inside {SPREADS:g} standard deviations, ✗ if it lies outside, and ? if n is "
    f"below {ENOUGH}, so that the spread is unknown.",
    "picked on: the split whose score picked the epoch. Figures picked on test are optimistic: "
    "they have their own lines, and can be compared only with figures picked in the same way.",
    "runs: the run folders behind a line, one per seed; page.json holds, for each number, the "
    "files and places that it was computed from.",
)


@dataclass(kw_only=True)
class Page:
    """The content of a page.

    Args:
        sections: tables and figures, in order.
        title: the page's heading.
        facts: the command, data, runs and machines, one line each.
        warnings: what a reader must know first, such as a short schedule.
        synthetic: tasks whose features are synthetic.
    """

    sections: list[Section]
    title: str = "LEAP (ECCV 2024): the paper's figures and ours"
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    synthetic: set[str] = field(default_factory=set)

    def header(self, section: Section) -> list[str]:
        """Return the warnings above a section's table."""
        lines = list(self.warnings)
        if section.task in self.synthetic:
            lines.insert(
                0,
                "SYNTHETIC features: our numbers cannot match published ones, and are not evidence "
                "for or against them.",
            )
        return lines


def write_page(page: Page, out: Path) -> None:
    """Write page.json, page.md and page.html into a folder."""
    cells = {key: record for section in page.sections for key, record in _cells(section).items()}
    write_json(
        out / "page.json",
        {"title": page.title, "facts": page.facts, "warnings": page.warnings, "cells": cells},
    )
    write_atomic(out / "page.md", as_markdown(page, out))
    write_atomic(out / "page.html", as_html(page))


def cell_key(section: Section, group: Group, line: Line, column: str) -> str:
    """Return the key of a number in page.json, which page.html holds beside the number."""
    return " / ".join([section.key, group.title, line.label, line.selection, column])


def as_markdown(page: Page, out: Path) -> str:
    """Return the page as Markdown; its pictures are separate files."""
    lines = [f"# {page.title}", "", *(f"**{text}**\n" for text in page.warnings)]
    lines += [*(f"* {text}" for text in (*page.facts, *LEGEND)), ""]
    for section in page.sections:
        lines += [f"## {section.title}", "", *(f"**{text}**\n" for text in page.header(section))]
        lines += [f"{section.source}.", "", *(f"{note}\n" for note in section.notes)]
        if section.groups:
            head = ["", "picked on", "n", *(_short(c) for c in section.columns), "features", "runs"]
            lines += [markdown_row(head), "|---" * len(head) + "|"]
            for group in section.groups:
                note = f" ({group.note})" if group.note else ""
                lines.append(markdown_row([f"**{group.title}**{note}", *([""] * (len(head) - 1))]))
                lines += [_md_line(line, section) for line in group.lines]
            letters = _features(section).items()
            lines += ["", *(f"* features {letter}: {text}" for text, letter in letters), ""]
        for title, path in section.pictures:
            lines += [f"![{title}]({path.relative_to(out)})", ""]
    return "\n".join(lines)


def as_html(page: Page) -> str:
    """Return the page as one HTML file that contains its pictures."""
    esc = html.escape
    body = [
        f"<h1>{esc(page.title)}</h1>",
        *(f'<p class="warning">{esc(text)}</p>' for text in page.warnings),
    ]
    links = " · ".join(f'<a href="#{s.key}">{esc(s.title)}</a>' for s in page.sections)
    body += [
        f"<nav>{links}</nav>",
        "<ul>",
        *(f"<li>{esc(text)}</li>" for text in (*page.facts, *LEGEND)),
        "</ul>",
    ]
    for section in page.sections:
        body += [f'<section id="{section.key}"><h2>{esc(section.title)}</h2>']
        body += [f'<p class="warning">{esc(text)}</p>' for text in page.header(section)]
        body += [f"<p>{esc(text)}</p>" for text in (f"{section.source}.", *section.notes)]
        if section.groups:
            body.append(_table(section))
        for title, path in section.pictures:
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img alt="{esc(title)}" src="data:image/png;base64,{data}">'
            body.append(f"<figure>{image}</figure>")
        body.append("</section>")
    head = f'<meta charset="utf-8"><title>{esc(page.title)}</title><style>{STYLE}</style>'
    text = f"<head>{head}</head><body>{''.join(body)}</body>"
    return f'<!doctype html><html lang="en">{text}</html>\n'


def number(value: float, *, sign: bool = False) -> str:
    """Return a number with one decimal and a typographic minus sign; zero has no minus."""
    value = round(value, 1) + 0.0
    return f"{value:{'+' if sign else ''}.1f}".replace("-", "−")


def _table(section: Section) -> str:
    levels = [
        c.split("_")[0] if c.startswith(("segment_", "event_")) else c.split(": ")[0]
        for c in section.columns
    ]
    head = "".join(f"<th>{html.escape(_short(c))}</th>" for c in section.columns)
    starts = [i for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]
    out = ['<div class="wide"><table><thead><tr><th></th><th>picked on</th><th>n</th>', head]
    out.append("<th>feat.</th><th>runs</th></tr></thead><tbody>")
    width = len(section.columns) + 5
    for group in section.groups:
        title = html.escape(group.title)
        title += f" <small>{html.escape(group.note)}</small>" if group.note else ""
        out.append(f'<tr class="group"><th colspan="{width}">{title}</th></tr>')
        out += [_html_line(section, group, line, starts) for line in group.lines]
    letters = _features(section).items()
    keys = "; ".join(f"<b>{letter}</b> {html.escape(text)}" for text, letter in letters)
    return "".join([*out, f'</tbody></table></div><p class="key">Features: {keys}</p>'])


def _html_line(section: Section, group: Group, line: Line, starts: list[int]) -> str:
    esc = html.escape
    kind = "paper" if line.published else "ours"
    cells = [f'<th class="label">{esc(line.label)}</th><td class="text">{esc(line.selection)}</td>']
    if line.message:
        width = len(section.columns) + 3
        cells.append(f'<td class="message" colspan="{width}">{esc(line.message)}</td>')
        return f'<tr class="{kind}">{"".join(cells)}</tr>'
    cells.append(f"<td>{_count(line)}</td>")
    for index, column in enumerate(section.columns):
        edge = " edge" if index in starts else ""
        if not _filled(line, column):
            cells.append(f'<td class="none{edge}">–</td>')
            continue
        value, key = _value(line, column, **IN_HTML), esc(cell_key(section, group, line, column))
        cells.append(f'<td class="number{edge}" data-cell="{key}">{value}</td>')
    links = " ".join(f'<a href="{esc(path)}">{esc(text)}</a>' for text, path in line.links)
    for text in (_features(section).get(line.features, ""), links):
        cells.append(f'<td class="text">{text}</td>')
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _value(line: Line, column: str, *, spread: str, difference: str) -> str:
    """Return the text of a number's cell; `spread` and `difference` are templates."""
    if column in line.published:
        return number(line.published[column])
    figure = line.figures[column]
    assert figure is not None
    text = number(figure.mean)
    if figure.spread is not None:
        text += spread.format(number(figure.spread))
    if figure.difference is not None and figure.verdict is not None:
        name, points = figure.verdict.replace(" ", "-"), number(figure.difference, sign=True)
        text += difference.format(points, MARKS[figure.verdict], name=name)
    return text


def _md_line(line: Line, section: Section) -> str:
    columns = section.columns
    if line.message:
        rest = [""] * (len(columns) + 2)
        return markdown_row([line.label, line.selection, line.message, *rest])
    links = " ".join(f"[{text}]({path})" for text, path in line.links)
    values = [
        _value(line, column, **IN_MARKDOWN) if _filled(line, column) else "–" for column in columns
    ]
    letter = _features(section).get(line.features, "")
    return markdown_row([line.label, line.selection, _count(line), *values, letter, links])


def _filled(line: Line, column: str) -> bool:
    return column in line.published or line.figures.get(column) is not None


def _count(line: Line) -> str:
    counts = {len(f.values) for f in line.figures.values() if isinstance(f, Figure)}
    return str(max(counts)) if counts else ""


def _features(section: Section) -> dict[str, str]:
    """Return a letter for each text about features in a section's lines."""
    texts = dict.fromkeys(
        line.features for group in section.groups for line in group.lines if line.features
    )
    return dict(zip(texts, "abcdefghijklmnopqrstuvwxyz", strict=False))


def _short(column: str) -> str:
    return column.replace("segment_", "seg ").replace("event_", "evt ").replace(" - ", " − ")


def _cells(section: Section) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for group in section.groups:
        for line in group.lines:
            about = {"features": line.features, "selection": line.selection}
            for column in section.columns:
                key, figure = cell_key(section, group, line, column), line.figures.get(column)
                if column in line.published:
                    value = line.published[column]
                    found[key] = {"published": value, "source": section.source, **about}
                elif figure is not None:
                    found[key] = {**figure.record, **about}
    return found


STYLE = """
body{font:15px/1.45 system-ui,"DejaVu Sans",sans-serif;color:#1c1c1c;
max-width:1500px;margin:24px auto;padding:0 24px}
h1{font-size:25px}h2{font-size:20px;margin-top:44px;border-bottom:2px solid #333;padding-bottom:4px}
nav{margin:8px 0 16px}a{color:#00558b}
.warning{background:#fff1cc;border-left:5px solid #d98e00;
padding:6px 12px;margin:8px 0;font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;margin:10px 0}
th,td{padding:3px 7px;text-align:right;vertical-align:top;white-space:nowrap}
thead th{border-bottom:2px solid #333;font-size:12px}
tr.group th{text-align:left;white-space:normal;background:#eef2f5;
border-top:1px solid #b8c4cc;font-size:13.5px}
tr.group small{font-weight:400;color:#555}
th.label{text-align:left;font-weight:500}
td.text{text-align:left;font-size:11.5px;color:#444;white-space:normal;min-width:30px}
.key{font-size:12.5px;color:#444}
tr.paper td,tr.paper th{color:#333;background:#fafafa}
td.message{text-align:left;color:#8a4b00;white-space:normal}
.edge{border-left:1px solid #c9c9c9}td.none{color:#999}small{color:#555;font-size:11px}
.inside{color:#00693e;font-size:11.5px}.outside{color:#b3400a;font-size:11.5px}
.n-too-small{color:#666;font-size:11.5px}
figure{margin:14px 0}img{max-width:100%}
"""
