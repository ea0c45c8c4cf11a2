"""The sections of a page: published rows and ours, in groups of lines, one number per column."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.catalogue.cost import flops_per_clip
from avplatform.catalogue.published import Row, published_tables
from avplatform.models.config import AVModelConfig
from avplatform.reproduce.figures import Figure, Term, look_up, mean_of, measure, place
from avplatform.reproduce.targets import RIVAL, TABLES, Setting, Wanted, wanted, without_folders
from avplatform.sweeps.ledger import Entry

AVERAGE = "Avg."
STREAMS = ("audio", "visual")
PRECISIONS = {"no": "float32", "bf16": "bfloat16 (mixed)", "fp16": "float16 (mixed)"}
RULES = {"drop": f"no {' '.join(RIVAL)} label"}
"""What refinements of labels are called that have no name of their own."""
READINGS = ("union", "either_modality", "audio", "visual")
"""Possible meanings of "overlapping events" in Table 3, the names of `overlap_subsets` (AVVP)."""


@dataclass(kw_only=True)
class Line:
    """One line of a table: the paper's figures, ours, or the reason why there are none."""

    label: str
    features: str = ""
    selection: str = ""
    published: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Figure | None] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)
    message: str = ""


@dataclass(kw_only=True)
class Group:
    """The lines of one published row or class."""

    title: str
    note: str = ""
    lines: list[Line] = field(default_factory=list)


@dataclass(kw_only=True)
class Section:
    """One table or figure of the page."""

    key: str
    title: str
    source: str
    task: str
    columns: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictures: list[tuple[str, Path]] = field(default_factory=list)


@dataclass(kw_only=True)
class Shelf:
    """The results that fill the tables.

    Args:
        root: the page's folder.
        runs: finished runs by stem, one per seed.
        missing: why runs of a stem are missing.
        checkpoints: the authors' checkpoints, scored again, by stem.
        features: description of our features, by task.
        labels: label embeddings that the user gave, by kind.
    """

    root: Path
    runs: dict[str, list[Entry]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, Entry] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def features_of(self, setting: Setting) -> str:
        """Return the features and label embeddings that runs of a setting read."""
        text = self.features.get(setting.task, "")
        if setting.rule:
            text += f"; video labels by modality: {RULES.get(setting.rule, setting.rule)}"
        if not setting.labels:
            return text
        return f"{text}; labels: {without_folders(self.labels.get(setting.labels, 'glove-50d'))}"


def section(target: str, shelf: Shelf) -> Section:
    """Return the filled section of a target; Figure 4 has no lines, only pictures of the runs."""
    table = published_tables()[TABLES[target]]
    source = table.rows[0].source
    number = {"fig3": "Figure 3", "fig4": "Figure 4"}.get(target, source.table)
    title = "the same clips parsed by two models" if target == "fig4" else table.title
    out = Section(
        key=target,
        title=f"{number}: {title}",
        source=f"{source.paper} ({source.venue}), {number}",
        task=table.rows[0].task,
    )
    build = {"fig3": _per_class, "table3": _subsets, "fig4": lambda out, shelf: None}.get(
        target, _metrics
    )
    build(out, shelf)
    if out.groups:
        out.notes += _precision(out.key, shelf)
    return out


def _metrics(out: Section, shelf: Shelf) -> None:
    """Fill a table of dataset scores, with separate lines for the kept and the best test epoch."""
    rows = wanted(out.key)
    out.columns = _columns([w.row for w in rows])
    out.groups += _trivial(out, shelf)
    for item in rows:
        lines = [_published(item.row, out.columns)] if item.row.metrics else []
        if lines and (source := item.row.source) != rows[0].row.source:
            lines[0].label += f" ({source.paper}, {source.table.split(' (')[0]})"
        group = Group(title=item.title, note=item.row.note or "", lines=lines)
        out.groups.append(group)
        if item.setting is None:
            continue
        group.lines += _checkpoint_lines(item, shelf, out, ("test",))
        entries = shelf.runs.get(item.setting.stem, [])
        if entries:
            line = _our_line(item, shelf, selection=_selection(entries), label="ours")
            _fill(line, item, out.columns, entries, shelf, ("test",))
            group.lines += [line, *_not_beaten(entries)]
            group.lines.append(_test_selected(item, shelf, out.columns, entries))
            group.note = "; ".join(filter(None, (group.note, _cost(entries))))
        _why_missing(group, item, shelf)


def _trivial(out: Section, shelf: Shelf) -> list[Group]:
    """Return the scores of answers without training, which runs on the same clips share."""
    entries = _entries(out.key, shelf)
    entry = next((e for e in entries if _anchors(e)), None)
    if entry is None:
        return []
    first = next(iter(entry.results["test"]))  # the figure of an answer that has only one
    group = Group(title="Answers without training", note="the same clips and rules")
    for name, scores in _anchors(entry).items():
        line = Line(
            label=name.replace("_", " "),
            selection="none",
            features=shelf.features.get(out.task, ""),
            links=_links([entry], shelf.root),
        )
        at = ("details", "test", "anchors", name)
        metrics = [column for column in out.columns if column != AVERAGE]
        for column in out.columns:
            meant = metrics if column == AVERAGE else [column]
            places: list[tuple[str, ...]] = [(*at, metric) for metric in meant]
            if not isinstance(scores, dict):
                places = [at] if meant == [first] else []
            if places:
                terms = [mean_of(places)]
                line.figures[column] = measure([[entry]], terms, root=shelf.root)
        group.lines.append(line)
    return [group]


def _not_beaten(entries: Sequence[Entry]) -> list[Line]:
    """Return a line that names the answers without training that runs do not beat, if any."""
    counts: dict[str, int] = {}
    for entry in entries:
        for name in _anchors(entry):
            words = name.replace("_", " ")
            said = entry.results.get("not_beaten", {}).get("test", [])
            counts[words] = counts.get(words, 0) + any(f"'{words}'" in text for text in said)
    told = [f"'{name}' ({n} of {len(entries)} runs)" for name, n in counts.items() if n]
    if not told:
        return []
    return [Line(label="ours", message=f"The model does not beat {', '.join(told)}.")]


def _precision(target: str, shelf: Shelf) -> list[str]:
    """Return the sentence that names the precision of our runs."""
    used = sorted({str(entry.results.get("precision")) for entry in _entries(target, shelf)})
    if not used:
        return []
    names = " and ".join(PRECISIONS.get(name, name) for name in used)
    if len(used) > 1:
        return [f"Our runs were trained in {names}: their figures are not strictly comparable."]
    return [f"All of our runs were trained in {names}."]


def _entries(target: str, shelf: Shelf) -> list[Entry]:
    """Return the runs of a target."""
    stems = dict.fromkeys(w.setting.stem for w in wanted(target) if w.setting is not None)
    return [entry for stem in stems for entry in shelf.runs.get(stem, [])]


def _anchors(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = entry.results.get("details", {}).get("test", {}).get("anchors", {})
    return found


def _cost(entries: Sequence[Entry]) -> str:
    """Return what our runs cost: parameters, FLOPs of a clip, and CPU time of a run.

    A stage that only refines the labels of these runs is not counted.
    """
    parts = []
    if parameters := entries[0].results.get("parameters"):
        parts.append(f"{parameters:,} parameters")
    file = entries[0].folder / "model" / "config.json"
    if file.is_file():
        config = AVModelConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
        parts.append(f"{flops_per_clip(config) / 1e6:,.0f} MFLOPs per clip")
    times = [entry.results.get("seconds", {}).get("cpu") for entry in entries]
    if known := [time for time in times if time is not None]:
        parts.append(f"{statistics.fmean(known):,.0f} s of CPU time per run")
    return f"ours: {', '.join(parts)}" if parts else ""


def _test_selected(item: Wanted, shelf: Shelf, columns: list[str], entries: list[Entry]) -> Line:
    # Epochs were scored before thresholds were picked, which takes the kept epoch.
    early = any("settled" in entry.results for entry in entries)
    selection = "test (optimistic)" + ", before thresholds were picked" * early
    line = _our_line(item, shelf, selection=selection, label="ours, best epoch on test")
    if any(entry.test_selected is None for entry in entries):
        line.message = (
            "these runs recorded no test scores after each epoch, so no epoch can be picked on test"
        )
        line.links = []
        return line
    _fill(line, item, columns, entries, shelf, (), file="metrics.jsonl")
    return line


def _subsets(out: Section, shelf: Shelf) -> None:
    """Fill Table 3: each subset with four readings of "overlapping" and their numbers of clips."""
    out.notes.append(
        "The paper does not say what counts as overlapping, and no single split of the test clips "
        "fits both its Table 2 and its Table 3. All four readings are therefore shown, each with "
        "its number of clips, and a match with the paper proves little. union: a segment has two "
        "or more events, heard or seen; either modality: two or more within one modality; audio, "
        "visual: two or more within that modality. Scores on subsets are those of the epoch that "
        "validation picked; they are not recorded for other epochs."
    )
    rows = wanted(out.key)
    out.columns = _columns([w.row for w in rows])
    for item in rows:
        subset = str(item.row.subset)
        title = f"{item.title}, {subset.replace('_', '-')}"
        group = Group(title=title, lines=[_published(item.row, out.columns)])
        out.groups.append(group)
        assert item.setting is not None
        entries = shelf.runs.get(item.setting.stem, [])
        for reading in READINGS:
            at = ("details", "test", "subsets", reading, subset)
            checkpoint = _checkpoint_lines(item, shelf, out, at)
            for line in checkpoint:
                line.label += f", {reading.replace('_', ' ')}"
            group.lines += checkpoint
            if entries:
                clips = entries[0].results["details"]["test"]["subsets"][reading][subset]["clips"]
                label = f"ours, {reading.replace('_', ' ')} ({clips} clips)"
                line = _our_line(item, shelf, selection=_selection(entries), label=label)
                _fill(line, item, out.columns, entries, shelf, at)
                group.lines.append(line)
        _why_missing(group, item, shelf)


def _per_class(out: Section, shelf: Shelf) -> None:
    """Fill Figure 3: event-level F of each class for both methods, and the difference per seed."""
    first, second = wanted(out.key)
    assert first.setting is not None and second.setting is not None
    out.notes.append(
        "Event-level F. The code of the paper's score per class is not published. Ours is the mean "
        "over the clips where the class occurs or is found; the line below it, pooled, is F from "
        "the counts over all clips. Differences are taken seed by seed."
    )
    names = (first.row.method.split(" + ")[-1], second.row.method.split(" + ")[-1])
    kinds = (*names, f"{names[1]} - {names[0]}")
    out.columns = [f"{stream}: {kind}" for stream in STREAMS for kind in kinds]
    one, two = (
        {entry.results["seed"]: entry for entry in shelf.runs.get(setting.stem, [])}
        for setting in (first.setting, second.setting)
    )
    pairs = [[one[seed], two[seed]] for seed in sorted(one.keys() & two.keys())]
    classes = list(first.row.per_class["audio"])
    for name in (*classes, AVERAGE):
        paper: dict[str, float] = {}
        for stream in STREAMS:
            a, b = (_published_class(w.row, stream, name) for w in (first, second))
            for kind, value in zip(kinds, (a, b, b - a), strict=True):
                paper[f"{stream}: {kind}"] = round(value, 1)
        line = Line(
            label="paper",
            features=first.row.features,
            selection="; ".join(w.row.selection or "not stated" for w in (first, second)),
            published=paper,
        )
        group = Group(title=name.replace("_", " "), lines=[line])
        out.groups.append(group)
        rules = {"class_event": "ours", "class_event_pooled": "ours, pooled"} if pairs else {}
        for rule, label in rules.items():
            selection = _selection([entry for pair in pairs for entry in pair])
            line = _our_line(second, shelf, selection=selection, label=label)
            line.links = [
                (f"{name} {seed}", path)
                for name, entries in zip(names, zip(*pairs, strict=True), strict=True)
                for seed, path in _links(entries, shelf.root)
            ]
            for stream in STREAMS:
                places = [
                    ("details", "test", rule, stream, c)
                    for c in (classes if name == AVERAGE else [name])
                ]
                present = [at for at in places if all(_has(pair, at) for pair in pairs)]
                for kind, weights in zip(kinds, ((1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)), strict=True):
                    column, figure = f"{stream}: {kind}", None
                    if present:
                        terms = [mean_of(present, weight=w) if w else [] for w in weights]
                        figure = measure(pairs, terms, root=shelf.root, paper=paper[column])
                    line.figures[column] = figure
            group.lines.append(line)
    for item in (first, second):
        if reason := shelf.missing.get(item.setting.stem):  # type: ignore[union-attr]
            out.notes.append(f"{item.title}: {reason}")


def _published(row: Row, columns: list[str]) -> Line:
    values = dict(row.metrics)
    if AVERAGE in columns and row.average is not None:
        values[AVERAGE] = row.average
    features = (
        f"{row.features}; labels: {row.label_embeddings}" if row.label_embeddings else row.features
    )
    reporter = {"paper": "paper", "release": "authors' release", "user": "trained again by a user"}[
        row.reported_by
    ]
    return Line(
        label=reporter, features=features, selection=row.selection or "not stated", published=values
    )


def _checkpoint_lines(item: Wanted, shelf: Shelf, out: Section, at: tuple[str, ...]) -> list[Line]:
    assert item.setting is not None
    found = shelf.checkpoints.get(item.setting.stem)
    if found is None:
        return []
    line = Line(
        label="authors' checkpoint, re-scored",
        features=shelf.features.get(out.task, "")
        + ("; labels: the authors'" if item.setting.labels else ""),
        selection=f"{item.row.selection or 'not stated'} (the authors')",
        links=[("scores", str(place(found.folder, shelf.root) / "results.json"))],
    )
    _fill(line, item, out.columns, [found], shelf, at)
    return [line]


def _our_line(item: Wanted, shelf: Shelf, *, selection: str, label: str) -> Line:
    assert item.setting is not None
    entries = shelf.runs.get(item.setting.stem, [])
    return Line(
        label=label,
        features=shelf.features_of(item.setting),
        selection=selection,
        links=_links(entries, shelf.root),
    )


def _fill(
    line: Line,
    item: Wanted,
    columns: list[str],
    entries: Sequence[Entry],
    shelf: Shelf,
    at: tuple[str, ...],
    *,
    file: str = "results.json",
) -> None:
    """Put the figures of every column, which lie below `at` in a file, into a line.

    The average is that of the source's columns.
    """
    metrics = [name for name in columns if name != AVERAGE]
    for name in columns:
        paper = item.row.average if name == AVERAGE else item.row.metrics.get(name)
        found = [(*at, metric) for metric in (metrics if name == AVERAGE else [name])]
        line.figures[name] = measure(
            [[e] for e in entries], [mean_of(found, file=file)], root=shelf.root, paper=paper
        )


def _why_missing(group: Group, item: Wanted, shelf: Shelf) -> None:
    assert item.setting is not None
    if reason := shelf.missing.get(item.setting.stem):
        group.lines.append(Line(label="ours", message=reason))


def _columns(rows: Sequence[Row]) -> list[str]:
    return [*rows[0].metrics, *([AVERAGE] if any(row.average is not None for row in rows) else [])]


def _selection(entries: Sequence[Entry]) -> str:
    splits = {entry.results["selection"]["split"] for entry in entries}
    names = {"none": "none (last epoch)", "test": "test (optimistic)"}
    return "; ".join(sorted(names.get(split, split) for split in splits))


def _links(entries: Sequence[Entry], root: Path) -> list[tuple[str, str]]:
    return [(str(entry.results["seed"]), str(place(entry.folder, root))) for entry in entries]


def _has(pair: Sequence[Entry], at: tuple[str, ...]) -> bool:
    return all(look_up(entry, Term(at=at)) is not None for entry in pair)


def _published_class(row: Row, stream: str, name: str) -> float:
    return row.per_class_average[stream] if name == AVERAGE else row.per_class[stream][name]
