"""LEAP on MM-Pyr, epoch by epoch: our validation figures beside those of a run on the real LLP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avplatform.catalogue.curves import published_curves
from avplatform.catalogue.published import published_tables
from avplatform.config.presets import preset_options
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.reproduce.figures import Term, measure, place
from avplatform.reproduce.tables import PRECISIONS, Group, Line, Section, Shelf
from avplatform.reproduce.targets import CURVES, TABLES, Wanted, wanted
from avplatform.sweeps.ledger import Entry

TARGET = "curve"
EPOCHS = (1, 2, 3, 5, 10, 20, 30)
"""Epochs of the table; the picture has all of them."""


def curve_section(shelf: Shelf) -> Section:
    """Return the table of the target curve: the ten figures of some epochs, published and ours.

    Args:
        shelf: the runs by stem, which need not be finished.
    """
    table = published_tables()[TABLES[TARGET]]
    out = Section(
        key=TARGET,
        title="Validation by epoch: LEAP on MM-Pyr",
        source=str(table.rows[0].source),
        task=table.rows[0].task,
        notes=[
            "The real run: the real features of LLP, VALOR's pseudo-labels, one seed; a derivative "
            "of LEAP with a second projection of the labels. Each difference is ours minus the "
            "real run after as many epochs."
        ],
    )
    for item in wanted(TARGET):
        assert item.setting is not None
        name = CURVES[item.setting.labels]
        real = published_curves()[name]
        out.columns = list(real[1])
        entries = shelf.runs.get(item.setting.stem, [])
        out.notes += [f"{name}, ours: {text}." for text in dict.fromkeys(map(_recipe, entries))]
        if not entries:
            reason = shelf.missing.get(item.setting.stem, "none is given with --run")
            out.notes.append(f"{name}: no run of ours ({reason}); the picture has the real one.")
        for epoch in EPOCHS if entries or not any(shelf.runs.values()) else ():
            group = Group(title=f"{name}, epoch {epoch}")
            group.lines = [_published(item, real[epoch]), *_ours(item, epoch, real, entries, shelf)]
            out.groups.append(group)
    return out


def runs_of(given: Sequence[str]) -> dict[str, list[Entry]]:
    """Return existing runs by the stem of their setting, from texts such as DIR or clip=DIR.

    Raises:
        UsageError: a folder is not one of a run of MM-Pyr + LEAP with pseudo-labels.
        DataError: a run has not finished an epoch.
    """
    stems = {w.setting.labels: w.setting for w in wanted(TARGET) if w.setting is not None}
    found: dict[str, list[Entry]] = {}
    for text in given:
        kind, _, rest = text.partition("=")
        labels, folder = (kind, rest) if kind in CURVES and rest else ("glove", text)
        entry = Entry(expanded(folder))
        if not (entry.folder / "config.yaml").is_file():
            raise UsageError(f"--run {text}: {entry.folder} is not a run folder (no config.yaml)")
        cell = ("task", "encoder", "decoder", "supervision")
        own, needed = entry.options, preset_options(stems[labels].preset)
        if wrong := [f"{name} {own.get(name)}" for name in cell if own.get(name) != needed[name]]:
            raise UsageError(
                f"--run {text} trained {', '.join(wrong)}; the curve is of "
                f"{', '.join(str(needed[name]) for name in cell)}"
            )
        if not epochs_of(entry):
            if any(record.get("event") == "epoch" for record in entry.records):
                raise DataError(
                    f"--run {text} was never scored on validation (select_on "
                    f"{own.get('select_on')}); the curve is of validation"
                )
            raise DataError(f"--run {text} has not finished an epoch yet; wait for it")
        found.setdefault(stems[labels].stem, []).append(entry)
    return found


def epochs_of(entry: Entry) -> dict[int, dict[str, float]]:
    """Return the validation figures of a run by epoch."""
    names = published_curves()[CURVES["glove"]][1]
    return {
        r["epoch"]: {name: r[name] for name in names if name in r}
        for r in entry.records
        if r.get("event") == "epoch" and r.get("split") == "validation"
    }


def _published(item: Wanted, figures: dict[str, float]) -> Line:
    assert item.setting is not None
    return Line(
        label="real run",
        features=f"{item.row.features}; labels: {CURVES[item.setting.labels]}",
        selection="this epoch, validation",
        published=figures,
    )


def _ours(
    item: Wanted,
    epoch: int,
    real: dict[int, dict[str, float]],
    entries: Sequence[Entry],
    shelf: Shelf,
) -> list[Line]:
    """Return the line of our runs that were validated after an epoch, or why there is none."""
    if not entries:
        return []
    there = [entry for entry in entries if epoch in epochs_of(entry)]
    assert item.setting is not None
    line = Line(
        label="ours", features=shelf.features_of(item.setting), selection="this epoch, validation"
    )
    if not there:
        line.message = "no run of ours has come to this epoch"
        return [line]
    line.links = [(str(e.options.get("seed")), _path(e, shelf.root)) for e in there]
    for name, paper in real[epoch].items():
        term = Term(at=(name,), file="metrics.jsonl", record=("epoch", epoch))
        line.figures[name] = measure(
            [[entry] for entry in there], [[term]], root=shelf.root, paper=paper
        )
    return [line]


def _recipe(entry: Entry) -> str:
    """Return what a run of ours shares with the real one, or not."""
    options = entry.options
    precision = PRECISIONS.get(options["precision"], options["precision"])
    return (
        f"{options['epochs']} epochs, batches of {options['batch_size']}, learning rate "
        f"{options['optim']['lr']:g}, precision {precision}, "
        f"labels {Path(options['labels']['embeddings']).name}"
    )


def _path(entry: Entry, root: Path) -> str:
    return str(place(entry.folder, root))
