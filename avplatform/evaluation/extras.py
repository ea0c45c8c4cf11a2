"""Extras of `avplatform eval`: intervals, thresholds from validation, calibration, robustness."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from avplatform.base.console import Console
from avplatform.data import Data
from avplatform.data.reading.arrays import SplitArrays
from avplatform.evaluation.bootstrap import check_resamples, intervals
from avplatform.evaluation.calibration import calibration
from avplatform.evaluation.markdown import signed
from avplatform.evaluation.options import EvalOptions
from avplatform.evaluation.perturbations import Change
from avplatform.evaluation.pictures import reliability_curves
from avplatform.evaluation.robustness import robustness, write_card
from avplatform.evaluation.thresholds import (
    MARK,
    apply_thresholds,
    choose_thresholds,
    named,
    require_analysis,
    require_evidence,
)
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Metrics

SHOWN = ("segment_A", "segment_V", "segment_Type@AV", "event_Type@AV")
"""Figures that the robustness picture and table show; a task without them shows its first three."""


WIDE = 20.0
"""Points from which an interval is called wide: that of about a hundred videos."""


class Score(Protocol):
    """A function that scores a split."""

    def __call__(
        self, arrays: SplitArrays, title: str = "score", change: Change | None = None
    ) -> Metrics:
        """Score a split, with a title for the progress bar and a change applied to its batches."""


def check_extras(asked: EvalOptions, data: Data, split: str) -> Path | None:
    """Check the extras before anything is scored; return the folder for pages and pictures, if any.

    Raises:
        UsageError: something would be learnt on the split that is reported, there are too few
            resamples, or there is no folder for the pages.
    """
    if asked.bootstrap:
        check_resamples(asked.bootstrap)
    if asked.reads_validation:
        flag = "--thresholds validation" if asked.thresholds == "validation" else "--calibration"
        if split == "validation":
            raise UsageError(
                f"{flag} learns from the validation split, so it cannot be reported on it; "
                "give --split test"
            )
        data.split_name("validation")
    if not (asked.calibration or asked.robustness):
        return None
    if asked.out is not None:
        return Path(asked.out)
    if not (Path(asked.model) / "config.yaml").is_file():
        raise UsageError(
            f"{asked.model} is not a run folder, so it cannot hold pages and pictures; "
            "give --out FOLDER"
        )
    return Path(asked.model) / "evaluation"


def extras(
    asked: EvalOptions, task: Task, data: Data, split: SplitArrays, own: Metrics, *, score: Score
) -> tuple[Metrics, dict[str, Any]]:
    """Return the metrics to report, and the content that the extras add to the results.

    Args:
        asked: says what to compute.
        task: makes the decisions and scores them.
        data: holds the validation split.
        split: the split that is reported.
        own: the metrics of `split` under the model's own thresholds.
        score: scores a split.
    """
    metrics, content = own, dict[str, Any]()
    if not own.timed and (asked.bootstrap or asked.reads_validation or asked.robustness):
        raise UsageError(
            f"the events of {split.name} have no times, so only whole videos are scored; leave out "
            "--bootstrap, --thresholds, --calibration and --robustness, or give the times"
        )
    validation = score(data.split("validation")) if asked.reads_validation else None
    if asked.thresholds == "validation" and validation is not None:
        analysis = require_analysis(task)
        thresholds = choose_thresholds(analysis, validation)
        metrics = apply_thresholds(task, own, thresholds)
        content |= {"thresholds": MARK, "threshold_values": named(analysis, thresholds)}
        content["own_thresholds"] = {split.name: own.figures()}
    if asked.bootstrap:
        contributions = require_analysis(task).contributions(metrics.state())
        content["confidence"] = intervals(
            contributions, split, resamples=asked.bootstrap, seed=asked.seed
        )
    if asked.calibration and validation is not None:
        analysis = require_analysis(task)
        judged = [analysis.judged(m.state(), require_evidence(m)) for m in (validation, own)]
        content["calibration"] = {split.name: calibration(*judged)}
    if asked.robustness:
        content["robustness"] = robustness(
            task,
            split,
            own,
            score=lambda name, change: score(split, f"{name}:", change),
            seed=asked.seed,
        )
    return metrics, content


def show_extras(console: Console, content: dict[str, Any], split: str, *, presence: bool) -> None:
    """Print the extras, one table each."""
    if "thresholds" in content:
        own = content["own_thresholds"][split]
        rows = [[name, f"{own[name]:.1f}", f"{content[split][name]:.1f}"] for name in own]
        console.table(
            f"{split} by thresholds, percent", ["", "the model's own", content["thresholds"]], rows
        )
    if "confidence" in content:
        found = content["confidence"]
        rows = [
            [name, f"{r['value']:.1f}", f"{r['low']:.1f}", f"{r['high']:.1f}", f"{r['error']:.2f}"]
            for name, r in found[split].items()
        ]
        title = (
            f"95 % intervals over {found['resamples']} resamples of the "
            f"{counted(found['videos'], 'video')} (they cover the choice of videos, not of the "
            "seed)"
        )
        console.table(title, ["", split, "low", "high", "standard error"], rows)
        widest = max(r["high"] - r["low"] for r in found[split].values())
        if widest > WIDE:
            console.note(
                f"the intervals are up to {widest:.0f} points wide, because {split} holds only "
                f"{counted(found['videos'], 'video')}: small differences between models mean "
                "nothing here; give more videos to it (--split of `avplatform data import table` "
                "and `avplatform extract`)"
            )
    if "calibration" in content:
        shown = [(when, what) for when in ("before", "after") for what in ("error", "brier")]
        rows = [
            [stream, *(f"{entry[when][what]:.2f}" for when, what in shown)]
            for stream, entry in content["calibration"][split].items()
        ]
        columns = ["", "error", "Brier", "error rescaled", "Brier rescaled"]
        console.table("calibration, percent; rescaling learnt on validation", columns, rows)
    if presence and content["presence"] is None:
        console.note(
            f"the labels of {content['task']} do not tell where an event is only audible or only "
            "visible"
        )
    elif presence:
        groups = content["presence"][split]
        rows = [
            [g.replace("_", " "), n.replace("_", " "), _cell(n, v)]
            for g, row in groups.items()
            for n, v in row.items()
        ]
        console.table(
            "events by the streams that they occur in, percent of (clip, class) pairs",
            ["events", "figure", split],
            rows,
        )
    if "robustness" in content:
        card = content["robustness"]
        names = _shown(card)
        rows = [["clean", *(f"{card['clean'][name]:.1f}" for name in names)]]
        rows += [
            [what, *(signed(row["difference"][name]) for name in names)]
            for what, row in card["perturbations"].items()
        ]
        console.table(
            "robustness with the model's own thresholds: clean scores, and differences to them",
            ["", *names],
            rows,
        )


def write_extras(content: dict[str, Any], split: str, folder: Path | None) -> list[Path]:
    """Write the pages and pictures; return the files.

    Raises:
        DataError: the folder cannot be written.
    """
    if folder is None:
        return []
    files: list[Path] = []
    note = "synthetic features" if content["synthetic"] else ""
    title = f"{content['encoder']} + {content['decoder']} on {content['data']}"
    try:
        if "calibration" in content:
            file = folder / f"reliability_{split}.png"
            told = ", ".join(filter(None, [title, note]))
            files.append(reliability_curves(content["calibration"][split], file, note=told))
        if "robustness" in content:
            card = content["robustness"]
            files += write_card(card, folder, title=title, metrics=_shown(card), note=note)
    except OSError as error:
        raise DataError(
            f"cannot write into {folder}: {error.strerror}; give another --out"
        ) from None
    return files


def _shown(card: dict[str, Any]) -> list[str]:
    return [name for name in SHOWN if name in card["clean"]] or list(card["clean"])[:3]


def _cell(name: str, value: float | int | None) -> str:
    if value is None:
        return "none"
    return str(value) if name == "pairs" else f"{value:.1f}"
