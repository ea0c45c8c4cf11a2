"""LEAP, its rivals and the published baseline on simulated OV-AVEBench.

`python -m benchmarks.open_benchmark --stores STORE [STORE ...] --out runs/ovavel`

The stores are those of `avplatform data simulate --task ovavel --ratio 0.25` with the presets
sim-ovavel-1-joint and sim-ovavel-1-joint-rho04 (SYNTHETIC features). Every row that is trained has
the recipe of its preset and at most ten epochs; the epoch is the one with the best average on
validation, and test is scored once. Rows "random texts" have random directions instead of the joint
model's texts, so that no text tells anything. The script can be stopped and started again: a
finished run is not repeated. `--show` prints the tables of what is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from avplatform.config.values import merge
from avplatform.data.store.schema import LABEL_FILE
from avplatform.evaluation.markdown import markdown_table
from avplatform.models.files import write_atomic
from avplatform.models.texts.files import read_label_file, write_label_file
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.sweep import PlannedRun, slug
from benchmarks.rows import anchors, cost_of_all, cpu_seconds, finished, options_of, scores, train
from examples.real_media.report import spread

RUN: dict[str, Any] = {"batch_size": 32, "precision": "no", "cpu": True, "save_plots": False}
"""Options of every run."""
RANDOM = "random texts"
ROWS: dict[str, dict[str, Any]] = {
    "cosine, fine-tuned (published baseline)": {"preset": "temporal-cosine-ovavel"},
    "LEAP, joint space": {
        "preset": "identity-leap-ovavel-joint",
        "decoder_config": {"clip_share": None},
    },
    "LEAP, joint space, clip share": {"preset": "identity-leap-ovavel-joint"},
    "LEAP, joint space, clip share, background as a text": {
        "preset": "identity-leap-ovavel-joint",
        "task_config": {"label_set": "with_background"},
    },
    f"LEAP, joint space, clip share, {RANDOM}": {"preset": "identity-leap-ovavel-joint"},
    f"cosine, fine-tuned, {RANDOM}": {"preset": "temporal-cosine-ovavel", "epochs": 5},
    "cosine, no training": {"preset": "identity-cosine-ovavel", "epochs": 1},
    "AVE + DCH (closed set)": {"preset": "ave-dch-ovavel", "epochs": 5},
    "HAN + MMIL (closed set)": {"preset": "han-mmil-ovavel", "epochs": 5},
    "LEAP, maps from scratch": {
        "preset": "identity-leap-ovavel-joint",
        "decoder_config": {"joint_space": False},
        "optim": {"lr": 3e-4},
        "epochs": 5,
    },
}
AMONG_UNSEEN = "unseen_among_unseen_accuracy"
FIGURES = tuple(
    f"{group}{figure}"
    for group in ("seen_", "unseen_", "")
    for figure in ("accuracy", "segment_F", "event_F")
)


def texts_of(row: str, store: Path, out: Path, seed: int) -> Path:
    """Return the file of the label texts' vectors of a run; random ones are written first."""
    own = store / LABEL_FILE
    if RANDOM not in row:
        return own
    path = out / f"random_{store.name}_seed-{seed}.safetensors"
    if not path.is_file():
        found, drawn = read_label_file(own), torch.Generator().manual_seed(seed)
        vectors = F.normalize(torch.randn(found.values.shape, generator=drawn), dim=-1)
        write_label_file(path, replace(found, values=vectors))
    return path


def planned(store: Path, row: str, seed: int, out: Path) -> PlannedRun:
    """Return one run of a row."""
    options = merge({"task": "ovavel", **RUN}, ROWS[row])
    texts = {"labels": {"embeddings": str(texts_of(row, store, out, seed))}}
    options = merge(options, {"data": str(store), "seed": seed})
    if "closed set" not in row:
        options = merge(options, texts)
    return PlannedRun(name=f"{store.name}_{slug(row.lower())}_seed-{seed}", options=options)


def table(store: Path, rows: dict[str, Sequence[Entry]]) -> str:
    """Return the Markdown table of a store: the rows, and answers that need no model."""
    lines = [
        [row, *scores(entries, FIGURES), str(len(entries)), cpu_seconds(entries)]
        for row, entries in rows.items()
    ]
    first = next(iter(rows.values()))[0]
    lines += [[*line, "", ""] for line in anchors(first, FIGURES)]
    head = [figure.replace("_", " ") for figure in FIGURES]
    return markdown_table([f"{store.name} (SYNTHETIC)", *head, "seeds", "CPU s"], lines)


def stacked(store: Path, rows: dict[str, Sequence[Entry]]) -> str:
    """Return the Markdown table of calibrated stacking, of the rows that decide by one logit."""
    lines = []
    for row, entries in rows.items():
        found = [entry.results["details"]["test"].get("stacking") for entry in entries]
        kept = [f for f in found if f is not None]
        if len(kept) < len(found):
            continue
        plain = scores(entries, ["seen_accuracy", "unseen_accuracy", AMONG_UNSEEN])
        told = [spread([f[name] for f in kept]) for name in ("seen_accuracy", "unseen_accuracy")]
        amount = ", ".join(f"{f['gamma']:.2g}" for f in kept)
        lines.append([row, *plain, amount, *told, str(len(entries))])
    head = ["seen", "unseen", "unseen, among unseen and background", "gamma"]
    head += ["seen, stacked", "unseen, stacked", "seeds"]
    return markdown_table([f"{store.name}: accuracy (SYNTHETIC)", *head], lines) if lines else ""


def main() -> int:
    """Train all that is missing, and print the tables."""
    parser = options_of(__doc__)
    parser.add_argument("--stores", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="+", default=list(ROWS), help="names of rows")
    args = parser.parse_args()
    names = [name for name in ROWS if name in args.only]
    runs = {
        (store, row): [planned(store, row, s, args.out) for s in range(1, args.seeds + 1)]
        for store in args.stores
        for row in names
    }
    train([run for group in zip(*runs.values(), strict=True) for run in group], args)
    tables = []
    for store in args.stores:
        done = {row: finished(runs[store, row], args.out) for row in names}
        if done := {row: entries for row, entries in done.items() if entries}:
            tables += filter(None, [table(store, done), stacked(store, done)])
    tables.append(cost_of_all(args.out))
    write_atomic(args.out / "tables.md", "\n\n".join(tables) + "\n")
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
