"""The schema of results.json, which is the same for a finished run and `avplatform eval --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avplatform.base.console import Console
from avplatform.models.errors import DataError
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Metrics, selection_score


def results(
    *,
    identity: dict[str, Any],
    selection: dict[str, Any] | None,
    metrics: dict[str, Metrics],
    headline: dict[str, str] | None = None,
    answers: dict[str, dict[str, dict[str, float]]] | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        identity: task, encoder, decoder, supervision, data, synthetic, seed, data_checksum.
        selection: split, metric, epoch and value by which the epoch was selected.
        metrics: the metrics by split.
        headline: the figure of each split by which the model is compared with trivial answers;
            None: it is not compared.
        answers: by split, the figures of further answers without training, which come before the
            trivial ones.
        extra: parameters, steps, environment and the like.
    """
    figures = {split: values.figures() for split, values in metrics.items()}
    details = {split: values.details() for split, values in metrics.items()}
    for split, found in (answers or {}).items():
        details[split]["anchors"] = {**found, **details[split].get("anchors", {})}
    return {
        **identity,
        "selection": selection,
        **figures,
        "details": details,
        "not_beaten": {}
        if headline is None
        else {
            split: not_beaten(figures[split], details[split], metric=metric)
            for split, metric in headline.items()
        },
        **(extra or {}),
    }


def not_beaten(figures: dict[str, float], details: dict[str, Any], *, metric: str) -> list[str]:
    """Return a sentence for each trivial answer that scores no less than the model.

    Args:
        figures: the model's headline figures on a split.
        details: the details of the same split, whose "anchors" are the scores of the answers.
        metric: the figure to compare.
    """
    own, sentences = figures[metric], []
    for name, values in details.get("anchors", {}).items():
        other = values if isinstance(values, (int, float)) else values.get(metric)
        if other is not None and own <= other:
            sentences.append(
                f"The model does not beat '{_label(name)}': {metric} {own:.2f} against {other:.2f}."
            )
    return sentences


def best_record(
    records: Sequence[dict[str, Any]], *, metric: str, ties: str = "latest"
) -> dict[str, Any] | None:
    """Return the record with the highest score; None if no record has all of its figures.

    Args:
        records: one per epoch, in order.
        metric: the figure that selects an epoch, or several joined by +.
        ties: which of equally good records, "latest" or "first".
    """
    scored = [(score, r) for r in records if (score := selection_score(r, metric)) is not None]
    ordered = reversed(scored) if ties == "latest" else scored
    best = max(ordered, key=lambda pair: pair[0], default=None)
    return None if best is None else best[1]


def class_figures(
    details: dict[str, Any],
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, int]]]:
    """Return the score and the number of true segments of each class, by series and name.

    The series are "audio" and "visual" (F of segments), or one named after the figure of the task
    ("accuracy"). A class that has no score has None.

    Args:
        details: details of one split, with "class_segment" (F) or "per_class" (accuracy).

    Raises:
        DataError: the details hold no scores per class.
    """
    if rows := details.get("per_class"):
        figure = next(iter(next(iter(rows.values()))))
        scores = {figure: {name: entry[figure] for name, entry in rows.items()}}
        counted = {name: entry["count"] for name, entry in rows.items() if "count" in entry}
        return scores, {figure: counted} if counted else {}
    if details.get("class_segment", {}).get("audio"):
        streams = ("audio", "visual")
        counts = details.get("class_count", {})
        return (
            {stream: details["class_segment"][stream] for stream in streams},
            {stream: counts[stream] for stream in streams if stream in counts},
        )
    raise DataError(
        "these results hold no scores per class; give details with per_class or class_segment"
    )


def has_classes(details: dict[str, Any]) -> bool:
    """Whether the details of a split hold scores of single classes."""
    return bool(details.get("per_class") or details.get("class_segment", {}).get("audio"))


def presence_of(task: Task, metrics: dict[str, Metrics]) -> dict[str, Any] | None:
    """Return the scores of events by the modalities in which they are present, per split.

    Return None if the task has no such analysis.
    """
    analysis = task.analysis()
    found = {
        split: None if analysis is None or not values.timed else analysis.presence(values.state())
        for split, values in metrics.items()
    }
    return found if any(found.values()) else None


def show(console: Console, content: dict[str, Any], splits: list[str]) -> None:
    """Print the results, and the scores of trivial answers ("anchors") on the last split."""
    names = list(dict.fromkeys(name for split in splits for name in content[split]))
    rows = [
        [name, *(f"{v[name]:.1f}" if name in (v := content[s]) else "-" for s in splits)]
        for name in names
    ]
    kind = " (SYNTHETIC features)" if content["synthetic"] else ""
    title = (
        f"{content['encoder']} + {content['decoder']} on {content['task']} "
        f"({content['supervision']}), data {content['data']}{kind}, percent"
    )
    console.table(title, ["", *splits], rows)
    anchors = reference_scores(content, splits[-1])
    if anchors:
        cells = [
            [f"{v[name]:.1f}" if name in v else "" for v in anchors.values()] for name in names
        ]
        rows = [[name, *row] for name, row in zip(names, cells, strict=True) if any(row)]
        console.table(f"{splits[-1]}: answers without training", ["", *map(_label, anchors)], rows)
    for split in splits:
        details = content.get("details", {}).get(split) or {}
        for sentence in [*content["not_beaten"][split], *details.get("remarks", [])]:
            console.note(f"{split}: {sentence}")


def reference_scores(content: dict[str, Any], split: str) -> dict[str, dict[str, float]]:
    """Return the headline figures of the trivial answers on a split by their names.

    Where a task has one headline figure, the answers' scores are plain numbers in the details.
    """
    metrics = list(content[split])
    anchors = content.get("details", {}).get(split, {}).get("anchors", {})
    return {
        name: value if isinstance(value, dict) else dict.fromkeys(metrics[:1], value)
        for name, value in anchors.items()
    }


def _label(name: str) -> str:
    return name.replace("_", " ")
