"""The robustness card: scores with late, muted, frozen, noisy or missing audio or video."""

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
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Metrics

FILE = "robustness"


def robustness(
    task: Task,
    split: SplitArrays,
    clean: Metrics,
    *,
    score: Callable[[str, Change], Metrics],
    seed: int = 0,
) -> dict[str, Any]:
    """Return a split's scores under every perturbation, and their differences to the clean scores.

    All values are in percent. Where the audio is late and its labels move along, the truth changes,
    and even a model that detects nothing scores differently. There the difference is taken to the
    clean decisions, delayed in the same way ("reference").

    Args:
        task: the task that scores.
        split: the clips.
        clean: the metrics of the unchanged split.
        score: returns the metrics of the split for a perturbation's name and its change of batches.
        seed: seed of the noise.
    """
    analysis, rows, references = task.analysis(), {}, {}
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
        folder: folder of the files.
        title: names the model and the data.
        metrics: the figures that the picture shows.
        note: added to titles, such as "synthetic features".
    """
    text = robustness_page(card, title=title, note=note)
    return [
        write_json(folder / f"{FILE}.json", card),
        write_atomic(folder / f"{FILE}.md", text),
        robustness_bars(
            card,
            folder / f"{FILE}.png",
            metrics=metrics,
            note=", ".join(filter(None, [title, note])),
        ),
    ]


def robustness_page(card: dict[str, Any], *, title: str, note: str = "") -> str:
    """Return the card as Markdown: each figure, and its difference to the clean one in brackets."""
    names = list(card["clean"])
    rows = [["clean", *(f"{card['clean'][name]:.1f}" for name in names)]]
    for perturbation, row in card["perturbations"].items():
        scores, change = row["scores"], row["difference"]
        rows.append([perturbation, *(f"{scores[n]:.1f} ({signed(change[n])})" for n in names)])
    head = (
        f"# Robustness of {title}\n\nSplit {card['split']}, {card['clips']} clips. Figures are in "
        "percent, with the difference to the clean figure in brackets."
    )
    if any(row["reference"] != card["clean"] for row in card["perturbations"].values()):
        head += (
            " Late audio moves its labels along, and is compared to the clean decisions, delayed "
            "in the same way."
        )
    head += f" **{note[0].upper()}{note[1:]}.**" if note else ""
    return f"{head}\n\n{markdown_table(['', *names], rows)}\n"
