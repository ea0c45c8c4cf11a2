"""What a user does, in a process of its own: import all of it, train on videos, score, predict."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.features.clips import RATE, beep, render
from tests.features.networks import small_weights

ROOT = Path(__file__).resolve().parent.parent
STEPS = """
import importlib

from avplatform.cli import main
from tests.import_graph import modules

for name in modules(Path(ROOT)):
    if not name.endswith("__main__"):
        importlib.import_module(name)
import avplatform

weights = ["--weights", "vggish=vggish.pth", "visual=test_resnet.safetensors", "--cpu"]
small = ["--batch-size", "4", "--cpu", "--threads", "1", "--max-steps", "2"]
for line in (
    ["extract", "videos", "--events", "events.csv", "--out", "data", "--segments", "2",
     "--audio", "vggish", "--visual", "timm:test_resnet", "--motion", "none", *weights],
    ["train", "--task", "avvp", "--encoder", "han", "--decoder", "mmil", "--data", "data",
     "--output-dir", "run", *small],
    ["train", "--task", "avel", "--data", DEMO, "--output-dir", "demo", *small],
    ["eval", "demo", "--cpu"],
    ["predict", "videos/clip0.mp4", "--model", "run", "--out", "found", *weights],
):
    assert main(line) == 0, line
timeline = avplatform.pipeline("run", weights={"vggish": "vggish.pth",
                                               "visual": "test_resnet.safetensors"})
assert timeline("videos/clip1.mp4").duration > 1
print("arrived")
"""


def make_folder(folder: Path, *, videos: int = 8) -> Path:
    """Write videos of two seconds, their events, and the weights of two small networks."""
    (folder / "videos").mkdir(parents=True)
    rows = [["video", "onset", "offset", "label"]]
    for number in range(videos):
        label = ("low tone", "high tone")[number % 2]
        sound = beep(2, 0, 1, hertz=(300, 3000)[number % 2])[: 2 * RATE]
        pictures = [np.full((64, 96, 3), 20 * number, np.uint8)] * 8
        render(folder / "videos" / f"clip{number}.mp4", pictures=pictures, fps=4, sound=sound)
        rows.append([f"clip{number}.mp4", "0", "1", label])
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    small_weights(folder)
    return folder


def travel(folder: Path, demo: Path, *, before: str) -> subprocess.CompletedProcess[str]:
    """Run the steps in a folder of `make_folder`, after the code in `before`, with the Hub on.

    Args:
        folder: the folder.
        demo: a store of synthetic data.
        before: code that runs before anything of the platform is imported.
    """
    home = {name: str(folder / "home") for name in ("HOME", "HF_HOME", "AVPLATFORM_CACHE")}
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    head = f"from pathlib import Path\nROOT, DEMO = {str(ROOT)!r}, {str(demo)!r}\n"
    return subprocess.run(
        [sys.executable, "-c", head + before + STEPS],
        cwd=folder,
        env={**kept, **home, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
