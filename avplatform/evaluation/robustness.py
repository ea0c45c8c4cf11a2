"""The robustness card: what a model scores when sound or picture are late, silent, still, noisy or missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from avplatform.base.files import write_json
from avplatform.data.reading.arrays import SplitArrays
from avplatform.evaluation.markdown import markdown_table, signed
from avplatform.evaluation.perturbations import SHIFTS, Change, perturbations, shift_name
from avplatform.evaluation.pictures import robustness_bars
from avplatform.models.files import write_atomic
from avplatform.tasks.contracts import Metrics, Task

FILE = "robustness"


def robustness(
    task: Task,
    split: SplitArrays,
    clean: Metrics,
    *,
    score: Callable[[str, Change], Metrics],
    seed: int = 0,
) -> dict[str, Any]:
    """Return the scores of a split under every perturbation, and their differences to the clean ones, in percent.

    Where the sound is late and the labels move along, the truth is another one, and even a model that finds nothing scores
    differently. There the difference is to the clean decisions, moved along in the same way ("reference").

    Args:
        task: scores.
        split: the clips.
        clean: the scores of the unchanged split.
        score: scores the split with its batches changed; gets the perturbation's name too.
        seed: of the noise.
    """
    analysis, rows = task.analysis(), {}
    references = {}
    if analysis is not None:
        for segments in SHIFTS:
            moved = task.metrics()
            moved.merge([analysis.late(clean.state(), segments)])
            references[shift_name(segments)] = moved.figures()
    for name, change in perturbations(split, seed=seed).items():
        scores, before = score(name, change).figures(), references.get(name, clean.figures())
        difference = {metric: scores[metric] - before[metric] for metric in before}
        rows[name] = {"scores": scores, "reference": before, "difference": difference}
    head = {"split": split.name, "clips": len(clean), "noise_seed": seed}
    return {**head, "clean": clean.figures(), "perturbations": rows}


def write_card(
    card: dict[str, Any], folder: Path, *, title: str, metrics: list[str], note: str = ""
) -> list[Path]:
    """Write the card as JSON, Markdown and PNG; return the files.

    Args:
        card: what `robustness` returned.
        folder: where the files go.
        title: says which model on which data.
        metrics: the figures that the picture shows.
        note: added to titles, such as "synthetic features".
    """
    text = robustness_page(card, title=title, note=note)
    return [
        write_json(folder / f"{FILE}.json", card),
        write_atomic(folder / f"{FILE}.md", text),
        robustness_bars(card, folder / f"{FILE}.png", metrics=metrics, note=note),
    ]


def robustness_page(card: dict[str, Any], *, title: str, note: str = "") -> str:
    """Return the card as Markdown: every figure, and in brackets its difference to the clean one."""
    names = list(card["clean"])
    rows = [["clean", *(f"{card['clean'][name]:.1f}" for name in names)]]
    for perturbation, row in card["perturbations"].items():
        rows.append(
            [
                perturbation,
                *(
                    f"{row['scores'][name]:.1f} ({signed(row['difference'][name])})"
                    for name in names
                ),
            ]
        )
    head = f"# Robustness of {title}\n\nSplit {card['split']}, {card['clips']} clips, percent; in brackets: minus clean."
    if any(row["reference"] != card["clean"] for row in card["perturbations"].values()):
        head += " Late sound takes its labels along, and is held against the clean decisions moved likewise."
    return "\n".join(
        [
            head + (f" **{note[0].upper()}{note[1:]}.**" if note else ""),
            "",
            markdown_table(["", *names], rows),
            "",
        ]
    )
