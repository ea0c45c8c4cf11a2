"""Decoders compared on simulated features: `python benchmarks/simulated.py --llp STORE --ave STORE --out runs/simulated`.

Both decoders get the same encoder, steps, batch size and schedule; the learning rate is chosen for each on validation, after
a third of the steps, on the first seed. The stores are those of `avplatform data simulate`. The script can be stopped
and started again: a finished run is not repeated, an unfinished one is resumed. `--workers 2` runs two at a time, one
thread each. It ends with `table.md` and `table.json` in the output folder. All numbers are on SYNTHETIC features.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GAIN = ["--decoder-config.score-gain", "4.0", "--decoder-config.score-bias", "-2.5"]


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    name: str
    store: str
    steps: int
    rates: tuple[str, ...]
    flags: tuple[str, ...]


def cells(avvp_steps: int, avel_steps: int) -> list[Cell]:
    """Return the comparisons: AVVP on HAN, AVEL on AVE, full and weak."""
    han = ("--task", "avvp", "--encoder", "han", "--encoder-config.width", "256")
    ave = ("--task", "avel", "--encoder", "ave")
    slow, fast = ("3e-4", "5e-4"), ("3e-4", "5e-4", "1e-3")
    out = [
        Cell("avvp HAN+MMIL", "llp", avvp_steps, slow, (*han, "--decoder", "mmil")),
        Cell("avvp HAN+LEAP as released", "llp", avvp_steps, slow, (*han, "--decoder", "leap")),
        Cell("avvp HAN+LEAP with gain and bias", "llp", avvp_steps, slow, (*han, "--decoder", "leap", *GAIN)),
    ]
    for supervision in ("full", "weak"):
        for decoder in ("dch", "leap"):
            flags = (*ave, "--decoder", decoder, "--supervision", supervision)
            out.append(Cell(f"avel {supervision} AVE+{decoder.upper()}", "ave", avel_steps, fast, flags))
    return out


def run(cell: Cell, store: Path, folder: Path, *, lr: str, seed: int, steps: int, threads: int) -> dict:
    """Train one run (or go on with it, or read it) and return its results."""
    results = folder / "results.json"
    if not results.exists():
        base = [sys.executable, str(ROOT / "train.py")]
        resumable = (folder / "checkpoints").is_dir()
        args = (
            ["--resume", str(folder)]
            if resumable
            else [
                *cell.flags, "--data", str(store), "--seed", str(seed), "--optim.lr", lr, "--max-steps", str(steps),
                "--epochs", "1000000", "--batch-size", "32", "--schedule.name", "late_decay", "--schedule.after", "0.75",
                "--threads", str(threads), "--cpu", "--no-save-plots", "--output-dir", str(folder),
            ]
        )  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".log").open("a") as log:
            subprocess.run([*base, *args], check=True, env=env, stdout=log, stderr=subprocess.STDOUT)
    return json.loads(results.read_text())


def choose_rate(cell: Cell, store: Path, out: Path, threads: int) -> str:
    """Return the learning rate with the best validation score after a third of the steps, on seed 1."""
    scores = {}
    for lr in cell.rates:
        folder = out / slug(cell.name) / f"rate-{lr}"
        found = run(cell, store, folder, lr=lr, seed=1, steps=cell.steps // 3, threads=threads)
        scores[lr] = found["selection"]["value"]
    return max(scores, key=scores.__getitem__)


def measure(cell: Cell, store: Path, out: Path, seeds: int, threads: int, rate: str | None) -> dict:
    """Run all seeds of one cell."""
    started = time.time()
    lr = rate or choose_rate(cell, store, out, threads)
    runs = []
    for seed in range(1, seeds + 1):
        folder = out / slug(cell.name) / f"seed-{seed}"
        runs.append(run(cell, store, folder, lr=lr, seed=seed, steps=cell.steps, threads=threads))
        print(f"{cell.name}, lr {lr}, seed {seed}: {headline(runs[-1])}", flush=True)
    return {"cell": cell.name, "lr": lr, "steps": cell.steps, "runs": runs, "minutes": (time.time() - started) / 60}


def headline(result: dict) -> str:
    """Return the main test figures of a run."""
    test = result["test"]
    if "accuracy" in test:
        details = result["details"]["test"]
        parts = [f"{details[k]:.1f}" for k in ("event_accuracy", "background_accuracy")]
        return f"accuracy {test['accuracy']:.1f} (event {parts[0]}, background {parts[1]})"
    return " ".join(f"{value:.1f}" for value in test.values())


def table(measured: list[dict]) -> str:
    """Return a Markdown table of means and spreads over seeds."""
    lines = ["SYNTHETIC features; test split; mean (standard deviation over seeds).", ""]
    for task in ("avvp", "avel"):
        rows = [m for m in measured if m["cell"].startswith(task)]
        if not rows:
            continue
        metrics = list(rows[0]["runs"][0]["test"])
        lines += [f"| cell | lr | steps | seeds | {' | '.join(metrics)} |", "|---" * (4 + len(metrics)) + "|"]
        for row in rows:
            cells_ = []
            for metric in metrics:
                values = [r["test"][metric] for r in row["runs"]]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                cells_.append(f"{statistics.mean(values):.1f} ({spread:.1f})")
            lines.append(f"| {row['cell']} | {row['lr']} | {row['steps']} | {len(row['runs'])} | {' | '.join(cells_)} |")
        lines.append("")
    return "\n".join(lines)


def slug(name: str) -> str:
    """Return a name as a folder."""
    return name.lower().replace("+", "-").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llp", type=Path, help="store of simulated LLP")
    parser.add_argument("--ave", type=Path, help="store of simulated AVE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--avvp-steps", type=int, default=6000)
    parser.add_argument("--avel-steps", type=int, default=1500)
    parser.add_argument("--only", default="", help="only cells whose name holds this text")
    parser.add_argument("--rate", help="use this learning rate for all instead of choosing")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time, one thread each")
    args = parser.parse_args()
    stores = {"llp": args.llp, "ave": args.ave}
    chosen = [c for c in cells(args.avvp_steps, args.avel_steps) if args.only in c.name and stores[c.store]]
    if not chosen:
        raise SystemExit("nothing to run: give --llp and/or --ave, and an --only that is in a cell's name")
    with ThreadPoolExecutor(args.workers) as pool:
        jobs = [pool.submit(measure, c, stores[c.store], args.out, args.seeds, 1, args.rate) for c in chosen]
        measured = [job.result() for job in jobs]
    args.out.mkdir(parents=True, exist_ok=True)
    suffix = f"-{slug(args.only)}" if args.only else ""
    (args.out / f"table{suffix}.json").write_text(json.dumps(measured, indent=2))
    text = table(measured)
    (args.out / f"table{suffix}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
