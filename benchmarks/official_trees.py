"""Import, measure and verify full-size LLP and AVE in the official formats.

    AVP_LLP_DIR=... AVP_AVE_DIR=... python -m benchmarks.official_trees [--clips N]
        [--dtype float16 float32] [--keep DIR]

The annotations are the real ones; the features are drawn by `avplatform data simulate --layout
official`. Every step runs in a separate process, so that its peak memory can be measured. LLP takes
8 GB of disk, AVE 8 GB, and their stores at most 4 GB. All of it is deleted afterwards, unless
`--keep` names a folder for it (trees that are already there are used again). `--clips` takes the
first N clips of each split, for a smaller run. The exit code is 1 unless everything is imported
completely and verified without errors, and LLP's store takes at most a twelfth (float16) or a sixth
(float32) of the official files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.llp.annotations import read_annotations as read_llp
from avplatform.data.adapters.registry import DATASETS

TASKS = {"llp": "avvp", "ave": "avel"}
FOLDERS = {"llp": "AVP_LLP_DIR", "ave": "AVP_AVE_DIR"}
LEAST_RATIO = {("llp", "float16"): 12, ("llp", "float32"): 6}
SPARE = 4e9  # bytes that stay free


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--dtype", nargs="+", choices=("float16", "float32"), default=["float16"])
    parser.add_argument("--clips", type=int, help="clips of each split; default: all")
    parser.add_argument("--keep", help="folder for trees and stores, which stay")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="official-trees-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows, good = [], True
    try:
        for dataset in options.datasets:
            source = Path(os.environ[FOLDERS[dataset]])
            if options.clips is not None:
                source = fewer(dataset, source, folder / f"{dataset}-annotations", options.clips)
            tree = folder / dataset
            if not tree.exists():
                need = 9e9 if options.clips is None else 0
                if shutil.disk_usage(folder).free < need + SPARE:
                    sys.exit(f"{folder} has not the {(need + SPARE) / 1e9:.0f} GB that this needs")
                flags = [
                    "--task",
                    TASKS[dataset],
                    "--annotations",
                    str(source),
                    "--out",
                    str(tree),
                    "--layout",
                    "official",
                ]
                show("draw", dataset, *child("data", "simulate", *flags))
            for dtype in options.dtype:
                row, fine = measure(dataset, tree, folder / f"{dataset}-{dtype}", dtype, source)
                rows.append(row)
                good &= fine
                shutil.rmtree(folder / f"{dataset}-{dtype}", ignore_errors=True)
            if options.keep is None:
                shutil.rmtree(tree)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(
        "\n| data | clips | read, MB | written, MB | ratio "
        "| import, s | peak, MB | verify, s | peak, MB | errors | warnings |"
    )
    print("|---|" + "---:|" * 10)
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0 if good else 1


def measure(
    dataset: str, tree: Path, out: Path, dtype: str, source: Path
) -> tuple[list[str], bool]:
    """Import and verify a tree; return a row of the table and whether all was right."""
    shutil.rmtree(out, ignore_errors=True)
    took = show(
        f"import {dtype}",
        dataset,
        *child("data", "import", dataset, str(tree), "--out", str(out), "--dtype", dtype),
    )
    if took[0] != 0:
        return [f"{dataset} {dtype}", "import failed", *[""] * 9], False
    report = json.loads((out / "import_report.json").read_text(encoding="utf-8"))
    found = out.with_suffix(".json")
    flags = ["data", "verify", str(out), "--annotations", str(source), "--json", str(found)]
    checked = show(f"verify {dtype}", dataset, *child(*flags))
    findings = json.loads(found.read_text(encoding="utf-8"))
    ratio = report["bytes_read"] / report["bytes_written"]
    row = [
        f"{dataset} {dtype}",
        f"{sum(report['stored'].values()):,}",
        f"{report['bytes_read'] / 1e6:,.0f}",
    ]
    row += [
        f"{report['bytes_written'] / 1e6:,.0f}",
        f"1/{ratio:.1f}",
        f"{took[1]:.0f}",
        f"{took[2]:.0f}",
    ]
    row += [
        f"{checked[1]:.0f}",
        f"{checked[2]:.0f}",
        str(len(findings["errors"])),
        str(len(findings["warnings"])),
    ]
    return row, checked[0] == 0 and not report["left_out"] and ratio >= LEAST_RATIO.get(
        (dataset, dtype), 0
    )


def child(*args: str) -> tuple[int, float, float, str]:
    """Run a command of the platform in a child process.

    Returns its exit code, its seconds, its peak memory in MB, and what it printed.
    """
    start = time.perf_counter()
    root = str(Path(__file__).resolve().parent.parent)
    env = {**os.environ, "PYTHONPATH": root}
    # The child reports its own peak: RUSAGE_CHILDREN here would be the largest of all children so
    # far.
    code = (
        "import resource, sys; from avplatform.cli import main; code = main(sys.argv[1:]); "
        "print(f'peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}'); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, encoding="utf-8", env=env
    )
    peak = re.search(r"^peak (\d+)$", done.stdout, flags=re.M)
    return (
        done.returncode,
        time.perf_counter() - start,
        int(peak[1]) / 1024 if peak else 0.0,
        done.stdout + done.stderr,
    )


def show(
    what: str, dataset: str, code: int, seconds: float, peak: float, text: str
) -> tuple[int, float, float]:
    """Print the outcome of a command at once, and what it said where it failed."""
    print(f"{dataset} {what}: {seconds:.0f} s, peak {peak:.0f} MB, exit code {code}", flush=True)
    if code:
        print(text[-2000:])
    return code, seconds, peak


def fewer(dataset: str, source: Path, out: Path, clips: int) -> Path:
    """Write the annotations of the first clips of each split; rows of AVE are numbered anew."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    splits = read_llp(source).splits if dataset == "llp" else read_ave(source).splits
    rows = [row for indices in splits.values() for row in indices[:clips].tolist()]
    if dataset == "ave":
        count = len(read_ave(source).clip_ids)
        rows += range(count, count + read_ave(source).background_count)
    DATASETS[dataset].copy_annotations(source, out, rows)
    return out


if __name__ == "__main__":
    sys.exit(main())
