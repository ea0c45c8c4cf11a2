"""Measure the peak memory of an AVE import whose h5 maps are chunked over several clips.

    AVP_AVE_DIR=... python -m benchmarks.chunked_maps [--chunk 16] [--filters none shuffle]
        [--dtype float16 float32]

Writes random float64 features for the 4,143 real lines with `--chunk` clips per chunk, plain or
through a filter (then a chunk can only be read whole), imports them in a separate process, and
prints its time and peak memory. Takes 11 GB of disk, which are freed afterwards. The exit code is 1
unless every import stored all clips and stayed below 2 GiB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from avplatform.data.adapters.ave.annotations import read_annotations
from avplatform.data.adapters.ave.h5 import KEY
from avplatform.data.adapters.ave.importing import AUDIO_SHAPE, VISUAL_SHAPE
from avplatform.data.adapters.ave.official_layout import copy_annotations
from benchmarks.official_trees import child

LIMIT = 2048  # MiB
NEED = 15e9  # bytes of disk


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunk", type=int, default=16, help="clips in a chunk")
    parser.add_argument(
        "--filters", nargs="+", choices=("none", "shuffle"), default=["none", "shuffle"]
    )
    parser.add_argument("--dtype", nargs="+", choices=("float16", "float32"), default=["float16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chunked-maps-") as name:
        folder, good = Path(name), True
        if shutil.disk_usage(folder).free < NEED:
            sys.exit(f"{folder} has not the {NEED / 1e9:.0f} GB that this needs")
        copy_annotations(os.environ["AVP_AVE_DIR"], folder)
        (folder / "labels_noisy.h5").unlink(missing_ok=True)
        count = len(read_annotations(folder).clip_ids)
        with h5py.File(folder / "audio_feature.h5", "w") as h5:
            h5[KEY] = np.random.default_rng(0).random((count, *AUDIO_SHAPE))
        print("| chunk | filter | stored | import, s | peak, MB |\n|---|---|---|---:|---:|")
        for kind in options.filters:
            write_maps(folder / "visual_feature.h5", count, options.chunk, kind == "shuffle")
            for dtype in options.dtype:
                out = folder / "store"
                code, seconds, peak, text = child(
                    "data", "import", "ave", str(folder), "--out", str(out), "--dtype", dtype
                )
                print(
                    f"| {options.chunk} clips | {kind} | {dtype} | {seconds:.0f} | {peak:.0f} |",
                    flush=True,
                )
                if code:
                    print(text[-2000:])
                good &= code == 0 and peak < LIMIT
                shutil.rmtree(out, ignore_errors=True)
    return 0 if good else 1


def write_maps(file: Path, count: int, chunk: int, shuffle: bool) -> None:
    """Write random float64 maps a chunk at a time."""
    rng = np.random.default_rng(1)
    with h5py.File(file, "w") as h5:
        shape = (count, *VISUAL_SHAPE)
        maps = h5.create_dataset(
            KEY, shape, dtype="f8", chunks=(chunk, *VISUAL_SHAPE), shuffle=shuffle
        )
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            maps[start:stop] = rng.random((stop - start, *VISUAL_SHAPE), dtype=np.float32)


if __name__ == "__main__":
    sys.exit(main())
