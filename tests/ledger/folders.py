"""Run folders as training leaves them, with made-up scores: what the pages are tested on."""

import json
from pathlib import Path

import numpy as np
import yaml

from avplatform.config.values import to_dict
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.reproduce.reproduce import RUNS, Plan
from avplatform.sweeps.sweep import resolve
from avplatform.tasks.avvp.metrics import averages

READINGS = ("union", "either_modality", "audio", "visual")


def ten(rng):
    return averages(rng.uniform(0.2, 0.9, (5, 8)))


def details(task, rng, *, absent):
    if task == "avel":
        return {"clips": 10, "per_class": {}, "anchors": {"always_background": 17.25}}
    per_class = {
        rule: {
            stream: {
                name: None if name in absent else float(rng.uniform(0, 100)) for name in CLASSES
            }
            for stream in ("audio", "visual", "event", "av")
        }
        for rule in ("class_event", "class_event_pooled")
    }
    subsets = {
        r: {s: {"clips": 7, **ten(rng)} for s in ("overlapping", "non_overlapping")}
        for r in READINGS
    }
    low, high = (ten(np.random.default_rng(seed)) for seed in (1, 2))
    anchors = {"nothing_predicted": low, "video_labels_everywhere": high}
    return {"clips": 10, **per_class, "subsets": subsets, "anchors": anchors}


def write_run(
    folder: Path,
    task: str,
    seed: int,
    *,
    checksum: str,
    select="validation",
    test_epochs=3,
    absent=(),
):
    """Write results.json and metrics.jsonl of a finished run."""
    rng = np.random.default_rng([seed, *folder.name.encode()])

    def scores():
        return {"accuracy": float(rng.uniform(20, 80))} if task == "avel" else ten(rng)

    folder.mkdir(parents=True, exist_ok=True)
    metric = "accuracy" if task == "avel" else "segment_Type@AV"
    results = {
        "task": task, "seed": seed, "data_checksum": checksum, "precision": "no",
        "selection": {"split": select, "metric": metric, "epoch": 1, "value": 1.0},
        "validation": scores(), "test": scores(),
        "details": {"test": details(task, rng, absent=absent)},
        "not_beaten": {"test": ["The model does not beat 'nothing predicted': 1 against 2."]}
        if seed == 2 else {},
        "environment": {"platform": "a machine", "cpu": "a cpu", "torch": "2"},
    }  # fmt: skip
    records = [
        {"event": "test_epoch", "epoch": n, "step": n, **scores()}
        for n in range(1, test_epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "results.json").write_text(json.dumps(results))


def write_runs(plan: Plan, out: Path, data, **options) -> None:
    """Write every run of a plan, as if it had been trained."""
    for stem, runs in plan.runs.items():
        task = plan.settings[stem].task
        for run in runs:
            folder = out / RUNS / run.name
            write_run(folder, task, run.options["seed"], checksum=data[task][1].checksum, **options)
            (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(resolve(run, where="test"))))
