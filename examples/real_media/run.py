"""Run all: `python -m examples.real_media.run --cache CACHE --out RUNS [--sample VIDEO]`.

Fetches, composes, extracts with the lite backbones, trains HAN with MMIL and with LEAP over seeds
(from clip labels alone, and from the composed timeline), scores the test split, prints the tables,
and parses a video with a model trained here. Every step is one of the platform's own commands and
is skipped if its result is already there, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from avplatform.base.console import Console
from avplatform.models.errors import AVError, DataError
from avplatform.models.files import write_atomic
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.runner import report, run_jobs, train_jobs
from avplatform.sweeps.sweep import PlannedRun
from examples.real_media.compose import SIZES, clip_file, compose
from examples.real_media.fetch import fetch, material_table, weights_folder
from examples.real_media.plan import Plan
from examples.real_media.report import class_table, score_table
from examples.real_media.sources import CLASSES, SPLITS
from examples.real_media.store import label_store

CELLS = {
    f"HAN+{decoder.upper()}, {told}": {"decoder": decoder, "supervision": supervision}
    for supervision, told in (("weak", "clip labels"), ("pseudo", "timeline"))
    for decoder in ("mmil", "leap")
}
"""Rows of the table."""
OPTIONS = {"task": "avvp", "encoder": "han", "batch_size": 16, "cpu": True}
"""Options of all rows.

Batches are smaller than the default because there are few clips; nothing else was chosen for them.
"""
SHOWN = "HAN+LEAP, timeline"  # the cell whose first seed parses the sample
SAMPLE_PLACE = "sample/BjCEufrlXm4.mp4"  # in the folder of LLP's files


def main() -> int:
    """Run all steps by the command line."""
    args = _arguments()
    console, started = Console(), time.monotonic()
    try:
        fetch(args.cache)
        sizes = {split: getattr(args, split) for split in SPLITS}
        plan = compose(args.cache, args.out / "clips", sizes=sizes, seed=args.seed, console=console)
        extract(args.cache, args.out, processes=args.processes, console=console)
        if not (args.out / "store" / "dataset.json").is_file():
            label_store(args.out / "features", plan, args.out / "store")
        failed = train(
            args.out, seeds=args.seeds, epochs=args.epochs, workers=args.workers, console=console
        )
        if not failed:
            tell(args.cache, args.out, plan, seeds=args.seeds)
            sample = args.sample or _sample()
            failed |= predict(args.cache, args.out, sample=sample, seed=1, console=console)
    except AVError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console.note(f"{time.monotonic() - started:.0f} s; all in {args.out}")
    return failed


def extract(cache: Path, out: Path, *, processes: int, console: Console) -> None:
    """Extract the features of all clips, unless they are there.

    Raises:
        DataError: the command failed; its words are on the screen.
    """
    if (out / "features" / "dataset.json").is_file():
        return console.note("features are there")
    launch = (
        ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    command = [
        *launch,
        "-m",
        "avplatform",
        "extract",
        str(out / "clips"),
        "--out",
        str(out / "features"),
        "--cpu",
    ]
    command += ["--backbones", "lite", "--weights", str(weights_folder(cache)), "--long", "first"]
    if _call(command):
        raise DataError("extraction did not end well; what is there stays, run it again")


def train(out: Path, *, seeds: int, epochs: int, workers: int, console: Console) -> int:
    """Train what is not finished; return 1 if a run failed."""
    runs = [
        planned(name, out / "store", seed=seed, epochs=epochs)
        for seed in range(1, seeds + 1)
        for name in CELLS
    ]
    jobs = train_jobs(runs, out / "runs", parallel=workers, where="real media")
    outcome = run_jobs(jobs, logs=out / "logs", parallel=workers, console=console)
    return report(outcome, console, logs=out / "logs")


def planned(name: str, store: Path, *, seed: int, epochs: int) -> PlannedRun:
    """Return the run of a cell and seed."""
    return PlannedRun(
        name=run_name(name, seed),
        options={**OPTIONS, **CELLS[name], "data": str(store), "seed": seed, "epochs": epochs},
    )


def run_name(name: str, seed: int) -> str:
    """Return the folder of a run."""
    return f"han-{CELLS[name]['decoder']}-{CELLS[name]['supervision']}_seed-{seed}"


def tell(cache: Path, out: Path, plan: Plan, *, seeds: int) -> None:
    """Print the tables, and write them to tables.md."""
    folders = {
        name: [out / "runs" / run_name(name, seed) for seed in range(1, seeds + 1)]
        for name in CELLS
    }
    results = {
        name: [Entry(folder).results for folder in places] for name, places in folders.items()
    }
    counts = ", ".join(
        f"{sum(clip.split == split for clip in plan.clips)} {split}" for split in SPLITS
    )
    parts = [
        f"Clips: {counts}. {len(CLASSES)} of LLP's 25 classes occur: "
        f"{', '.join(CLASSES)}. Sources:",
        material_table(cache),
        f"Test split, percent, mean ± standard deviation over {seeds} seeds:",
        score_table(results),
        "Events a class, and segment F (heard / seen, mean over seeds):",
        class_table(plan, results),
    ]
    text = "\n\n".join(parts) + "\n"
    write_atomic(out / "tables.md", text)
    print(text)


def predict(cache: Path, out: Path, *, sample: Path | None, seed: int, console: Console) -> int:
    """Parse the sample video and the first test clip that has events; return 1 if that failed."""
    clips = Plan.from_json((out / "clips" / "plan.json").read_text(encoding="utf-8")).clips
    known = next(clip.name for clip in clips if clip.split == "test" and len(clip.events) > 2)
    videos = [str(clip_file(out / "clips", known)), *([str(sample)] if sample else [])]
    if sample is None:
        console.note("no sample video: give --sample, or the folder of LLP's files in AVP_LLP_DIR")
    command = [
        "-m",
        "avplatform",
        "predict",
        *videos,
        "--model",
        str(out / "runs" / run_name(SHOWN, seed)),
        "--cpu",
    ]
    return _call(
        [
            *command,
            "--out",
            str(out / "predictions"),
            "--weights",
            f"folder={weights_folder(cache)}",
        ]
    )


def _sample() -> Path | None:
    place = Path(os.environ.get("AVP_LLP_DIR", "")) / SAMPLE_PLACE
    return place if place.is_file() else None


def _call(command: list[str]) -> int:
    return subprocess.run([sys.executable, *command], check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache",
        type=Path,
        required=True,
        help="folder of packages and weights, outside the repository",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of clips, features, runs and predictions"
    )
    parser.add_argument(
        "--sample",
        type=Path,
        help=f"video to parse at the end; default: $AVP_LLP_DIR/{SAMPLE_PLACE}",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the clips")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each cell")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--processes", type=int, default=1, help="of the extraction")
    parser.add_argument("--workers", type=int, default=1, help="training runs at the same time")
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, default=SIZES[split], help=f"clips of {split}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
