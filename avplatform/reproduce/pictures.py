"""Draw the pictures of a page from its sections and from the runs themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avplatform.base.machine import make_accelerator
from avplatform.catalogue.curves import published_curves
from avplatform.data.reading.source import DataSource
from avplatform.evaluation.evaluate import example_tracks
from avplatform.models.av_model import AVModel
from avplatform.models.errors import DataError
from avplatform.reproduce.curve import TARGET, epochs_of
from avplatform.reproduce.figures import place
from avplatform.reproduce.plots import class_differences, compared_timelines, dots, epoch_curves
from avplatform.reproduce.tables import Section, Shelf
from avplatform.reproduce.targets import CURVES, wanted
from avplatform.tasks.avvp.metrics import overlap_subsets
from avplatform.tasks.ovavel import OVAVEL
from avplatform.tasks.registry import task_of_model

DOTS = {
    "table1": ("segment_Type@AV", "event_Type@AV", "Avg."),
    "table2": ("segment_Type@AV", "event_Type@AV"),
    "table3": ("event_Type@AV", "event_Event@AV"),
    "table4": ("segment_Type@AV", "event_Type@AV"),
    "table5": ("accuracy",),
    OVAVEL.name: ("seen_average", "unseen_average", "average"),
}
CLIPS = 2
"""Number of clips with overlapping events in Figure 4; the same number has none."""


def draw(
    section: Section,
    shelf: Shelf,
    data: dict[str, tuple[str, DataSource]],
    folder: Path,
    *,
    cpu: bool,
    short: bool = False,
) -> None:
    """Draw a section's pictures into a folder and add them to the section.

    Args:
        section: a section with its lines filled.
        shelf: the results that fill the page.
        data: stores by task.
        folder: folder of the pictures, each named like its section.
        cpu: stay on the CPU.
        short: each of our runs was cut short; pictures say so too, because they may be shown
            without the page.
    """
    source = data.get(section.task)
    synthetic = source is not None and source[1].synthetic
    note = ", ".join(["synthetic features"] * synthetic + ["SHORT SCHEDULE"] * short)
    file = folder / f"{section.key}.png"
    if section.key == "fig4":
        if source is not None and (
            drawn := _timelines(section, shelf, source[1], file, note=note, cpu=cpu)
        ):
            section.pictures.append((section.title, drawn))
    elif section.key == TARGET:
        section.pictures.append((section.title, _curves(section, shelf, file, note=note)))
    elif any(line.figures for group in section.groups for line in group.lines):
        if section.key == "fig3":
            drawn = class_differences(section, file, note=note)
        else:
            drawn = dots(section, DOTS[section.key], file, note=note)
        section.pictures.append((section.title, drawn))


def _timelines(
    section: Section, shelf: Shelf, data: DataSource, file: Path, *, note: str, cpu: bool
) -> Path | None:
    """Draw the same clips as the first seed of each of the two models parses them.

    If a model is missing, add a note to the section and return None.
    """
    pair = wanted(section.key)
    stems = [item.setting.stem for item in pair if item.setting is not None]
    lacking = [stem for stem in stems if not shelf.runs.get(stem)]
    if lacking:
        section.notes += [f"{stem}: {shelf.missing.get(stem, 'not run')}" for stem in lacking]
        return None
    entries = [shelf.runs[stem][0] for stem in stems]
    split = data.split("test")
    clips = example_clips(split.labels("dense_audio"), split.labels("dense_visual"))
    found, accelerator = [], make_accelerator(cpu=cpu, precision="no")
    for entry in entries:
        try:
            model = AVModel.from_pretrained(str(entry.folder / "model")).eval()
        except DataError as error:  # a deleted model only costs this picture, not the tables
            section.notes.append(f"not drawn: {error}")
            return None
        task, placed = task_of_model(model.config), model.to(accelerator.device)
        found.append(example_tracks(placed, task, split, clips, accelerator=accelerator))
    names = [item.row.method.split(" + ")[-1] for item in pair]
    folders = " and ".join(
        f"{n}: {place(e.folder, shelf.root)}" for n, e in zip(names, entries, strict=True)
    )
    section.notes += [
        "The paper shows two clips of its choice and no numbers. These clips are chosen by a rule, "
        f"not by how they look: evenly spaced among the test clips, {CLIPS} with overlapping "
        f"events and {CLIPS} without (union of both modalities).",
        f"Drawn from the runs {folders}.",
    ]
    return compared_timelines(list(zip(*found, strict=True)), names, file, note=note)


def _curves(section: Section, shelf: Shelf, file: Path, *, note: str) -> Path:
    """Draw the published curves and those of our runs."""
    ours = {
        CURVES[w.setting.labels]: [epochs_of(e) for e in shelf.runs.get(w.setting.stem, [])]
        for w in wanted(TARGET)
        if w.setting is not None
    }
    columns = ("segment_Type@AV", "event_Type@AV")
    note = f"ours: {note}" if note else ""
    return epoch_curves(published_curves(), ours, columns, file, title=section.title, note=note)


def example_clips(audio: np.ndarray, visual: np.ndarray) -> list[int]:
    """Return positions of clips with overlapping events and of clips without.

    They are evenly spaced among the clips that have events.

    Shape: `audio` and `visual` are 0/1 maps [N, T, C].
    """
    crowded = overlap_subsets(audio, visual)["union"]
    some = audio.any(axis=(1, 2)) | visual.any(axis=(1, 2))
    chosen: list[int] = []
    for kind in (crowded & some, ~crowded & some):
        at = np.flatnonzero(kind)
        count = min(CLIPS, len(at))
        chosen += [int(at[len(at) * (2 * i + 1) // (2 * CLIPS)]) for i in range(count)]
    return chosen
