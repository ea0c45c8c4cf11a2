"""results.json: one schema for a finished run and for `avplatform eval --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avplatform.base.console import Console
from avplatform.tasks.contracts import Metrics, Task


def results(
    *,
    identity: dict[str, Any],
    selection: dict[str, Any] | None,
    metrics: dict[str, Metrics],
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        identity: task, encoder, decoder, supervision, data, synthetic, seed, data_checksum.
        selection: split, metric, epoch and value by which the epoch was picked.
        metrics: per split.
        extra: parameters, steps, environment and the like.
    """
    return {
        **identity,
        "selection": selection,
        **{split: values.figures() for split, values in metrics.items()},
        "details": {split: values.details() for split, values in metrics.items()},
        **(extra or {}),
    }


def best_record(
    records: Sequence[dict[str, Any]], *, metric: str, ties: str = "latest"
) -> dict[str, Any] | None:
    """Return the record that scores best on a metric; None where there are no records.

    Args:
        records: one per epoch, in order.
        metric: one of their figures.
        ties: which of equally good ones, "latest" or "first".
    """
    ordered = reversed(records) if ties == "latest" else records
    return max(ordered, key=lambda record: record[metric], default=None)


def presence_of(task: Task, metrics: dict[str, Metrics]) -> dict[str, Any] | None:
    """Return, per split, the scores of events by the modalities that they are in; None where a task does not tell."""
    analysis = task.analysis()
    found = {
        split: None if analysis is None else analysis.presence(values.state())
        for split, values in metrics.items()
    }
    return found if any(found.values()) else None


def show(console: Console, content: dict[str, Any], splits: list[str]) -> None:
    """Print the results as a table, with what the anchors score on the same split."""
    names = list(content[splits[0]])
    anchors = content["details"][splits[-1]].get("anchors", {})
    headers = [
        "",
        *splits,
        *(f"{split}: {_label(name)}" for split in splits[-1:] for name in anchors),
    ]
    rows = []
    for name in names:
        cells = [f"{content[split][name]:.1f}" for split in splits]
        cells += [
            f"{values[name]:.1f}" if name in values else ""
            for values in map(_as_dict, anchors.values())
        ]
        rows.append([name, *cells])
    kind = " (SYNTHETIC features)" if content["synthetic"] else ""
    title = (
        f"{content['encoder']} + {content['decoder']} on {content['task']} ({content['supervision']}), "
        f"data {content['data']}{kind}, percent"
    )
    console.table(title, headers, rows)


def _as_dict(value: Any) -> dict[str, float]:
    return value if isinstance(value, dict) else {"accuracy": value}


def _label(name: str) -> str:
    return name.replace("_", " ")
