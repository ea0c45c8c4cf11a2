"""Test results as `.eval_results/*.yaml`, which the Hub reads beside a card's model index."""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub import (
    EvalResultEntry,
    eval_result_entries_to_yaml,
    parse_eval_result_entries,
)

from avplatform.models.errors import DataError, one_line
from avplatform.version import __version__

EVAL_FILE = ".eval_results/avplatform.yaml"


def eval_entries(results: dict[str, Any]) -> list[EvalResultEntry]:
    """Return an entry for each test figure; none if the data have no repository on the Hub.

    The name of the figure is the id of the benchmark's task, and its value is in percent.

    Args:
        results: the content of results.json.
    """
    hub = (results.get("training_data") or {}).get("hub")
    test = results.get("test") or {}
    return [
        EvalResultEntry(
            dataset_id=hub["repo"],
            dataset_revision=hub["revision"],
            task_id=name,
            value=value,
            notes=_notes(results, name),
        )
        for name, value in test.items()
        if hub and value is not None
    ]


def eval_text(results: dict[str, Any]) -> str:
    """Return the content of `.eval_results/avplatform.yaml`; empty if there is no entry."""
    entries = eval_entries(results)
    if not entries:
        return ""
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    check_eval_results(text, EVAL_FILE)
    return text


def check_eval_results(text: str, where: Any) -> None:
    """Raise DataError unless the Hub's client reads a text as evaluation results."""
    try:
        found = yaml.safe_load(text)
        if not isinstance(found, list) or not parse_eval_result_entries(found):
            raise ValueError("it is not a list of results")
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = one_line(error)
        raise DataError(
            f"{where} does not hold valid evaluation results ({reason}); correct or delete it"
        ) from None


def _notes(results: dict[str, Any], name: str) -> str:
    """Return in words what an entry has no field for."""
    told = ["percent on the test split"]
    confidence = results.get("confidence") or {}
    if found := confidence.get("test", {}).get(name):
        level = f"{100 * confidence['level']:.0f} %"
        told.append(f"{level} interval {found['low']:.2f} to {found['high']:.2f}")
    if selection := results.get("selection"):
        chosen = {"none": "last epoch", "test": "epoch selected on the TEST split"}
        split = selection["split"]
        told.append(chosen.get(split, f"epoch selected on {split}"))
    if results["synthetic"]:
        told.append("SYNTHETIC features")
    return "; ".join([*told, f"avplatform {__version__}"])
