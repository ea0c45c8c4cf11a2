"""Check that bf16 and two processes change results by no more than the spread over seeds.

    python -m benchmarks.agreement --data STORE --out DIR [--seeds 3] [--steps 600]
        [-- OPTIONS of train]

Compares bf16 with float32, and 2 processes with 1, with dropout on. Every variant is trained to the
end once per seed (finished runs in DIR are kept, unfinished ones are resumed) and scored on the
test split. A difference of means is inside the spread when it is at most two standard deviations
over seeds (pooled over both variants); its standard error is printed next to it. The exit code is 1
unless all differences are inside.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "float32, 1 process": (1, "no"),
    "bf16, 1 process": (1, "bf16"),
    "float32, 2 processes": (2, "no"),
}


def main() -> int:
    """Train what is missing, print the table, and return 0 if all differences are in the spread."""
    args, options = arguments()
    results: dict[str, list[dict]] = {}
    for seed in range(1, args.seeds + 1):
        for name, (processes, precision) in VARIANTS.items():
            folder = Path(args.out) / f"{precision}-{processes}-seed-{seed}"
            flags = [
                "--data",
                args.data,
                "--seed",
                str(seed),
                "--precision",
                precision,
                "--max-steps",
                str(args.steps),
            ]
            flags += [
                "--epochs",
                "1000",
                "--cpu",
                "--no-save-plots",
                "--output-dir",
                str(folder),
                *options,
            ]
            results.setdefault(name, []).append(run(folder, flags, processes))
    return report(results)


def run(folder: Path, flags: list[str], processes: int) -> dict:
    """Train (or resume, or read) one run; return its results."""
    if not (folder / "results.json").exists():
        given = ["--resume", str(folder)] if (folder / "config.yaml").exists() else flags
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            if processes > 1
            else []
        )
        print("train", folder.name, file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, *launcher, "train.py", *given],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
        )
        if done.returncode:
            sys.exit(f"{folder.name} failed: {done.stderr[-2000:]}")
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if content["processes"] != processes:
        sys.exit(f"{folder.name} ran on {content['processes']} processes, not {processes}")
    return content


def report(results: dict[str, list[dict]]) -> int:
    """Print the mean and standard deviation of every figure, and how each variant differs.

    Differences are taken from the first variant; each has a verdict.
    """
    first, *others = results
    content = results[first][0]
    kind = "SYNTHETIC features" if content["synthetic"] else "features"
    cell = (
        f"{content['encoder']} + {content['decoder']} on {content['task']} "
        f"({content['supervision']})"
    )
    print(
        f"{cell}, data {content['data']} ({kind}), {content['steps']} steps, "
        f"{len(results[first])} seeds, test split\n"
    )
    print(
        "| figure | "
        + " | ".join(results)
        + " | "
        + " | ".join(f"{name} − {first}" for name in others)
        + " |"
    )
    print("|---|" + "---|" * (len(results) + len(others)))
    inside = True
    for metric in content["test"]:
        values = {name: [run["test"][metric] for run in runs] for name, runs in results.items()}
        cells = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in values.values()]
        for name in others:
            a, b = values[first], values[name]
            spread = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
            error, difference = (
                spread * math.sqrt(2 / len(a)),
                statistics.mean(b) - statistics.mean(a),
            )
            fits = abs(difference) <= 2 * spread
            inside &= fits
            cells.append(
                f"{difference:+.1f} ± {error:.1f} "
                f"({'inside' if fits else 'OUTSIDE'} {2 * spread:.1f})"
            )
        print(f"| {metric} | " + " | ".join(cells) + " |")
    return 0 if inside else 1


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Return the benchmark's own arguments and the options that go to every run."""
    own, _, options = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a store")
    parser.add_argument("--out", required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args(own.split())
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: one has no spread")
    args.data, args.out = str(Path(args.data).resolve()), str(Path(args.out).resolve())
    return args, options.split()


if __name__ == "__main__":
    sys.exit(main())
