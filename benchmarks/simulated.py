"""Published cells compared on simulated features.

`python benchmarks/simulated.py --llp STORE --ave STORE --out runs/simulated`

AVVP: HAN and MM-Pyr with MMIL and LEAP. AVEL, full and weak: AVE, PSP and CMBS with DCH and LEAP. Within a task every cell
gets the same steps, batch size and schedule; losses are our defaults. Learning rates are the cells' own (below), or, with
`--choose-rates`, chosen for each on validation after a third of the steps on the first seed. The stores are those of
`avplatform data simulate`. The script can be stopped and started again: a finished run is not repeated, an unfinished one is
resumed. Seed 1 of every cell comes first. After every run `table.md` is written anew from all finished runs in the output
folder, with their CPU time. All numbers are on SYNTHETIC features.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
GAIN = ["--decoder-config.score-gain", "4.0", "--decoder-config.score-bias", "-2.5"]


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    name: str
    store: str
    steps: int
    rate: str
    choices: tuple[str, ...]
    flags: tuple[str, ...]


def cells(avvp_steps: int, avel_steps: int) -> list[Cell]:
    """Return the published cells, the cheap ones first, and LEAP on HAN with its learned gain and bias."""
    slow, fast = ("3e-4", "5e-4"), ("3e-4", "5e-4", "1e-3")

    def avvp(name: str, rate: str, encoder: str, decoder: str, *flags: str) -> Cell:
        width = ("--encoder-config.width", "256")
        own = ("--task", "avvp", "--encoder", encoder, *width, "--decoder", decoder, *flags)
        return Cell(f"avvp {name}", "llp", avvp_steps, rate, slow, own)

    def avel(supervision: str, encoder: str, decoder: str, rate: str, *flags: str) -> Cell:
        own = ("--task", "avel", "--encoder", encoder, "--decoder", decoder, "--supervision", supervision, *flags)
        return Cell(f"avel {supervision} {encoder.upper()}+{decoder.upper()}", "ave", avel_steps, rate, fast, own)

    clip = ("--optim.clip-norm", "0.5")
    return [
        avvp("HAN+MMIL", "3e-4", "han", "mmil"),
        avvp("HAN+LEAP as released", "5e-4", "han", "leap"),
        *(avel("full", "ave", decoder, "1e-3") for decoder in ("dch", "leap")),
        avel("weak", "ave", "dch", "5e-4"),
        avel("weak", "ave", "leap", "1e-3"),
        *(avel(supervision, "psp", decoder, "1e-3") for supervision in ("full", "weak") for decoder in ("dch", "leap")),
        *(avel("full", "cmbs", decoder, "7e-4", *clip) for decoder in ("dch", "leap")),
        *(avel("weak", "cmbs", decoder, "6e-4", *clip) for decoder in ("dch", "leap")),
        avvp("MM-Pyr+MMIL", "3e-4", "mmpyr", "mmil"),
        avvp("MM-Pyr+LEAP as released", "3e-4", "mmpyr", "leap"),
        avvp("HAN+LEAP with gain and bias", "3e-4", "han", "leap", *GAIN),
    ]


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
    for lr in cell.choices:
        folder = out / slug(cell.name) / f"rate-{lr}"
        found = run(cell, store, folder, lr=lr, seed=1, steps=cell.steps // 3, threads=threads)
        scores[lr] = found["selection"]["value"]
    return max(scores, key=scores.__getitem__)


def finished(cell: Cell, out: Path) -> dict | None:
    """Return what the finished runs of a cell measured, or None where there is none."""
    folders = sorted((out / slug(cell.name)).glob("seed-*/results.json"))
    if not folders:
        return None
    lr = yaml.safe_load((folders[0].parent / "config.yaml").read_text())["optim"]["lr"]
    return {"cell": cell.name, "lr": lr, "steps": cell.steps, "runs": [json.loads(f.read_text()) for f in folders]}


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
    lines = ["SYNTHETIC features; test split; mean (standard deviation over seeds); CPU seconds a run.", ""]
    for task in ("avvp", "avel"):
        rows = [m for m in measured if m["cell"].startswith(task)]
        if not rows:
            continue
        metrics = list(rows[0]["runs"][0]["test"])
        lines += [f"| cell | lr | steps | seeds | {' | '.join(metrics)} | kept epoch | CPU s |"]
        lines += ["|---" * (6 + len(metrics)) + "|"]
        for row in rows:
            values = [_mean([r["test"][metric] for r in row["runs"]]) for metric in metrics]
            epochs = ", ".join(str(r["selection"]["epoch"]) for r in row["runs"])
            seconds = statistics.mean(r["seconds"]["cpu"] for r in row["runs"])
            head = f"| {row['cell']} | {row['lr']:g} | {row['steps']} | {len(row['runs'])}"
            lines.append(f"{head} | {' | '.join(values)} | {epochs} | {seconds:.0f} |")
        lines.append("")
    total = sum(r["seconds"]["cpu"] for m in measured for r in m["runs"])
    return "\n".join([*lines, f"CPU time of all runs in the table: {total / 60:.0f} minutes."])


def _mean(values: list[float]) -> str:
    spread = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def slug(name: str) -> str:
    """Return a name as a folder."""
    return name.lower().replace("+", "-").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llp", type=Path, help="store of simulated LLP")
    parser.add_argument("--ave", type=Path, help="store of simulated AVE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--avvp-steps", type=int, default=3000)
    parser.add_argument("--avel-steps", type=int, default=600)
    parser.add_argument("--only", nargs="*", default=[""], help="only cells whose name holds one of these texts")
    parser.add_argument("--choose-rates", action="store_true", help="choose each cell's learning rate on validation first")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time, one thread each")
    args = parser.parse_args()
    stores, known = {"llp": args.llp, "ave": args.ave}, cells(args.avvp_steps, args.avel_steps)
    chosen = [c for c in known if any(text in c.name for text in args.only) and stores[c.store]]
    if not chosen:
        raise SystemExit("nothing to run: give --llp and/or --ave, and an --only that is in a cell's name")
    args.out.mkdir(parents=True, exist_ok=True)

    def measure(seed: int, cell: Cell) -> None:
        store = stores[cell.store]
        lr = choose_rate(cell, store, args.out, 1) if args.choose_rates else cell.rate
        folder = args.out / slug(cell.name) / f"seed-{seed}"
        found = run(cell, store, folder, lr=lr, seed=seed, steps=cell.steps, threads=1)
        print(f"{cell.name}, lr {lr}, seed {seed}: {headline(found)}; CPU {found['seconds']['cpu']:.0f} s", flush=True)
        measured = [m for c in known if (m := finished(c, args.out))]
        (args.out / "table.json").write_text(json.dumps(measured, indent=2))
        (args.out / "table.md").write_text(table(measured))

    with ThreadPoolExecutor(args.workers) as pool:
        jobs = [pool.submit(measure, seed, cell) for seed in range(1, args.seeds + 1) for cell in chosen]
        for job in jobs:
            job.result()
    print((args.out / "table.md").read_text())


if __name__ == "__main__":
    main()
