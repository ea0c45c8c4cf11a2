"""Published cells compared on simulated features.

`python -m benchmarks.simulated --llp STORE --ave STORE --out runs/simulated`

AVVP: HAN and MM-Pyr with MMIL and LEAP. AVEL, full and weak: AVE, PSP and CMBS with DCH and LEAP.
Within a task, every cell has the same steps, batch size and schedule; the losses are our defaults.
Each cell has its own learning rate: the one below or, with `--choose-rates`, the best on validation
after a third of the steps on the first seed. The stores are those of `avplatform data simulate`.
The script can be stopped and started again: a finished run is not repeated, and an unfinished one
is resumed. Seed 1 of every cell comes first. After every seed, `table.md` is rewritten from all
finished runs in the output folder, with their CPU time. All numbers are on SYNTHETIC features.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.base.console import Console
from avplatform.config.values import merge
from avplatform.sweeps.ledger import Entry, read_entries
from avplatform.sweeps.runner import report, run_jobs, train_jobs
from avplatform.sweeps.sweep import PlannedRun, slug

RUN = {
    "epochs": 1_000_000, "batch_size": 32, "schedule": {"name": "late_decay", "after": 0.75},
    "cpu": True, "save_plots": False,
}  # fmt: skip
Options = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    name: str
    store: str
    steps: int
    rate: float
    choices: tuple[float, ...]
    options: Options = field(default_factory=dict)


def cells(avvp_steps: int, avel_steps: int) -> list[Cell]:
    """Return the cells to train.

    They are the published ones, the cheap ones first, and LEAP on HAN with its learned gain and
    bias.
    """
    slow, fast = (3e-4, 5e-4), (3e-4, 5e-4, 1e-3)

    def avvp(name: str, rate: float, encoder: str, decoder: str, **options: Any) -> Cell:
        own = {
            "task": "avvp",
            "encoder": encoder,
            "encoder_config": {"width": 256},
            "decoder": decoder,
            **options,
        }
        return Cell(f"avvp {name}", "llp", avvp_steps, rate, slow, own)

    def avel(supervision: str, encoder: str, decoder: str, rate: float, **options: Any) -> Cell:
        own = {
            "task": "avel",
            "encoder": encoder,
            "decoder": decoder,
            "supervision": supervision,
            **options,
        }
        return Cell(
            f"avel {supervision} {encoder.upper()}+{decoder.upper()}",
            "ave",
            avel_steps,
            rate,
            fast,
            own,
        )

    clip = {"optim": {"clip_norm": 0.5}}
    gain = {"decoder_config": {"score_gain": 4.0, "score_bias": -2.5}}
    return [
        avvp("HAN+MMIL", 3e-4, "han", "mmil"),
        avvp("HAN+LEAP as released", 5e-4, "han", "leap"),
        *(avel("full", "ave", decoder, 1e-3) for decoder in ("dch", "leap")),
        avel("weak", "ave", "dch", 5e-4),
        avel("weak", "ave", "leap", 1e-3),
        *(
            avel(supervision, "psp", decoder, 1e-3)
            for supervision in ("full", "weak")
            for decoder in ("dch", "leap")
        ),
        *(avel("full", "cmbs", decoder, 7e-4, **clip) for decoder in ("dch", "leap")),
        *(avel("weak", "cmbs", decoder, 6e-4, **clip) for decoder in ("dch", "leap")),
        avvp("MM-Pyr+MMIL", 3e-4, "mmpyr", "mmil"),
        avvp("MM-Pyr+LEAP as released", 3e-4, "mmpyr", "leap"),
        avvp("HAN+LEAP with gain and bias", 3e-4, "han", "leap", **gain),
    ]


def planned(cell: Cell, store: Path, part: str, *, lr: float, seed: int, steps: int) -> PlannedRun:
    """Return one run of a cell; `part` tells the runs of a cell apart."""
    options = merge(
        {**cell.options, **RUN},
        {"optim": {"lr": lr}, "data": str(store), "seed": seed, "max_steps": steps},
    )
    return PlannedRun(name=f"{slug(cell.name.lower())}_{part}", options=options)


def best_rate(cell: Cell, out: Path) -> float:
    """Return the learning rate whose run scored best on validation."""
    runs = {lr: Entry(out / f"{slug(cell.name.lower())}_rate-{lr:g}") for lr in cell.choices}
    return max(runs, key=lambda lr: runs[lr].results["selection"]["value"])


def finished(cell: Cell, out: Path) -> dict | None:
    """Return what the finished runs of a cell measured, or None where there is none."""
    entries = [
        e
        for e in read_entries(out)
        if e.folder.name.rpartition("_seed-")[0] == slug(cell.name.lower())
    ]
    if not entries:
        return None
    lr = entries[0].options["optim"]["lr"]
    return {
        "cell": cell.name,
        "lr": lr,
        "steps": cell.steps,
        "runs": [entry.results for entry in entries],
    }


def table(measured: list[dict]) -> str:
    """Return a Markdown table of means and spreads over seeds."""
    lines = [
        "SYNTHETIC features; test split; mean (standard deviation over seeds); CPU seconds a run.",
        "",
    ]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llp", type=Path, help="store of simulated LLP")
    parser.add_argument("--ave", type=Path, help="store of simulated AVE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--avvp-steps", type=int, default=3000)
    parser.add_argument("--avel-steps", type=int, default=600)
    parser.add_argument(
        "--only", nargs="*", default=[""], help="only cells whose name holds one of these texts"
    )
    parser.add_argument(
        "--choose-rates",
        action="store_true",
        help="choose each cell's learning rate on validation first",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at the same time, which share the cores"
    )
    args = parser.parse_args()
    stores, known = {"llp": args.llp, "ave": args.ave}, cells(args.avvp_steps, args.avel_steps)
    chosen = [c for c in known if any(text in c.name for text in args.only) and stores[c.store]]
    if not chosen:
        raise SystemExit(
            "nothing to run: give --llp and/or --ave, and an --only that is in a cell's name"
        )
    console, logs = Console(), args.out / "logs"

    def train(runs: list[PlannedRun]) -> int:
        jobs = train_jobs(runs, args.out, parallel=args.workers, where="simulated")
        return report(
            run_jobs(jobs, logs=logs, parallel=args.workers, console=console), console, logs=logs
        )

    rates = {cell.name: cell.rate for cell in chosen}
    if args.choose_rates:
        tried = [(cell, lr) for cell in chosen for lr in cell.choices]
        runs = [
            planned(c, stores[c.store], f"rate-{lr:g}", lr=lr, seed=1, steps=c.steps // 3)
            for c, lr in tried
        ]
        if train(runs):
            raise SystemExit(1)
        rates = {cell.name: best_rate(cell, args.out) for cell in chosen}
    failed = 0
    for seed in range(1, args.seeds + 1):
        runs = [
            planned(
                cell,
                stores[cell.store],
                f"seed-{seed}",
                lr=rates[cell.name],
                seed=seed,
                steps=cell.steps,
            )
            for cell in chosen
        ]
        failed |= train(runs)
        measured = [m for c in known if (m := finished(c, args.out))]
        (args.out / "table.json").write_text(json.dumps(measured, indent=2), encoding="utf-8")
        (args.out / "table.md").write_text(table(measured), encoding="utf-8")
    print((args.out / "table.md").read_text(encoding="utf-8"))
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
