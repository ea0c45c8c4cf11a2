"""Write a comparison of runs as Markdown, JSON and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avplatform.base.drawing import with_note
from avplatform.base.files import write_json
from avplatform.evaluation.markdown import markdown_table, signed
from avplatform.evaluation.pictures import class_differences, differences
from avplatform.models.errors import DataError
from avplatform.models.files import write_atomic
from avplatform.tasks.metrics import selection_name

STREAMS = ("audio", "visual", "av")
"""Streams that pictures show, if the runs have them."""
FEW = 5  # seeds: fewer show too little of their spread


def write_comparison(content: dict[str, Any], folder: Path) -> list[Path]:
    """Write compare.json, compare.md and the pictures; return the files.

    The pictures are differences.png and one per other group and level.

    Raises:
        DataError: the folder cannot be written.
    """
    note = "synthetic features" if content["synthetic"] else ""
    first = content["groups"][0]["label"]
    try:
        files = [write_json(folder / "compare.json", content)]
        pictures = []
        if content["tests"]:
            pictures.append(
                differences(content["tests"], folder / "differences.png", first=first, note=note)
            )
        for number, (other, levels) in enumerate(content["per_class"].items(), start=1):
            for level, streams in levels.items():
                title = f"{level.capitalize()} scores per class, {content['split']}: {other}, "
                title = with_note(f"{title}minus {first}", note)
                rows = {name: streams[name] for name in STREAMS if name in streams}
                file = folder / f"per_class_{number}_{level}.png"
                pictures.append(
                    class_differences(rows, file, title=title, first=first, other=other)
                )
        text = comparison_page(content, [picture.name for picture in pictures])
        return [*files, write_atomic(folder / "compare.md", text), *pictures]
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from None


def comparison_page(content: dict[str, Any], pictures: list[str]) -> str:
    """Return the comparison as Markdown."""
    first = content["groups"][0]["label"]
    kind = "**synthetic features**" if content["synthetic"] else "features"
    lines = [
        f"# Runs on {content['task']}, data {content['data']} ({kind})",
        "",
        f"Split {content['split']}, {content['clips']} clips. All figures are in percent: "
        "the mean over seeds and, after ±, their standard deviation.",
        "",
        markdown_table(*figure_table(content)),
        "",
        *(
            f"* {g['label']}: seeds {', '.join(map(str, g['seeds']))} ({', '.join(g['runs'])})"
            for g in content["groups"]
        ),
        "",
    ]
    for other in content["tests"]:
        columns, rows = test_table(content, other)
        lines += [f"## {other}, minus {first}", "", markdown_table(columns, rows), ""]
    if content["tests"]:
        lines += [method(content), ""]
    if "selection_bias" in content:
        lines += [
            "## What picking the epoch on test adds",
            "",
            markdown_table(*selection_table(content)),
            "",
        ]
    return "\n".join([*lines, *(f"![{name}]({name})" for name in pictures), ""])


def figure_table(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the figures: one row per group."""
    names = list(content["groups"][0]["figures"])
    rows = []
    for group in content["groups"]:
        head = [group["label"], str(len(group["runs"])), group["selection"] or "unknown"]
        rows.append([*head, *(spread_cell(group["figures"][name]) for name in names)])
    return ["run", "seeds", "epoch picked on", *names], rows


def test_table(content: dict[str, Any], other: str) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the paired test of one group: one row per figure."""
    rows = [
        [
            name,
            signed(row["difference"]),
            f"{signed(row['low'])} to {signed(row['high'])}",
            f"{row['p']:.3f}",
        ]
        for name, row in content["tests"][other].items()
    ]
    return ["", "difference", "95 % interval", "p"], rows


def selection_table(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of what picking the epoch on test adds: one row per group."""
    picked = ("picked_on_validation", "picked_on_test", "added")
    rows = [
        [
            label,
            selection_name(entry["metric"]),
            *(spread_cell(entry["summary"][k]) for k in picked),
        ]
        for label, entry in content["selection_bias"].items()
    ]
    columns = ["run", "picked by", "on test, epoch picked on validation", "picked on test", "added"]
    return columns, rows


def method(content: dict[str, Any]) -> str:
    """Return the text on how the intervals and p were computed, and what they do not cover."""
    drawn = "clips and seeds" if any(len(g["runs"]) > 1 for g in content["groups"]) else "clips"
    text = (
        f"Paired bootstrap, {content['bootstrap']['resamples']} resamples of {drawn}, the same "
        "clips for both sides; p is two-sided and not corrected for the number of figures."
    )
    if any(1 < len(g["runs"]) < FEW for g in content["groups"]):
        text += (
            f" Fewer than {FEW} seeds show too little of their spread: "
            "the intervals are too narrow."
        )
    if any(len(g["runs"]) == 1 for g in content["groups"]):
        text += (
            " For a single run the interval covers only the choice of clips, "
            "not what another seed would change."
        )
    return text


def spread_cell(figure: dict[str, Any]) -> str:
    """Return a mean and, for several runs, the spread."""
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.1f}"
    return f"{figure['mean']:.1f}{spread}"
