"""What lies in the folder in which a page's blocks are run: small stand-ins for what it names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from avplatform.cli import main
from avplatform.data.simulate.demo import make_demo
from avplatform.features.soundnet import CONVERTED, SoundNet8
from tests.data.official import LLP_CLIPS, ave_tree, llp_tree
from tests.data.test_import_ovave import with_vectors, write_ovave
from tests.features.networks import small_weights, timm_file
from tests.own_videos import LAMPS, make_lamps, render_lamps
from tests.pseudo_labels import files as pseudo

NAMES = {"red lamp": "Dog", "blue lamp": "Car", "low tone": "Speech", "high tone": "Cat"}
"""Classes of LLP, whose words every installation has, in place of those of the rendered videos."""
SMALL = "--audio vggish --visual timm:test_resnet --motion none --cpu"
"""Flags of `extract` with which it needs no downloaded network."""
HELD = "Violin_fiddle Cat Motorcycle Clapping Vacuum_cleaner"
STEPS = "--max-steps 2 --cpu --threads 1 --precision no --no-save-plots --batch-size 4"
"""Flags of `train` for a run of seconds."""


def done(line: str, *more: str) -> None:
    """Run a command that must succeed."""
    assert main([*line.split(), *more]) == 0, line


def make_weights(folder: Path, places: Places) -> None:
    """Random weights, under the names that the published ones have."""
    folder.mkdir()
    small_weights(folder, gain=10)
    timm_file(folder / "tf_efficientnet_lite0.safetensors", "tf_efficientnet_lite0")
    torch.manual_seed(0)
    save_file(SoundNet8().state_dict(), folder / CONVERTED)


def make_cache(folder: Path, places: Places) -> None:
    """The cache with demo data of a few clips in place of the full ones."""
    for task in ("avvp", "avel", "ovavel"):
        make_demo(task, folder / f"demo-{task}-1", sizes={"train": 24, "validation": 9, "test": 10})


def demo(task: str) -> Callable[[Path, Places], None]:
    return lambda folder, places: shutil.copytree(places["cache"] / f"demo-{task}-1", folder)


def make_videos(folder: Path, places: Places) -> None:
    """A folder `videos` of eight videos and `events.csv`, with names of classes of LLP."""
    make_lamps(folder, count=8, step=1.0)
    file = folder / "events.csv"
    text = file.read_text(encoding="utf-8")
    for before, after in NAMES.items():
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")


def make_video(file: Path, places: Places) -> None:
    """A video of a lamp and a tone, whatever the suffix of its name."""
    made = render_lamps(
        file.with_suffix(".mp4"), lamps=[(2, 7, LAMPS["red lamp"])], tones=[(3, 8, 3000)]
    )
    if made != file:
        made.replace(file)


def make_llp_videos(folder: Path, places: Places) -> None:
    """Videos that are named after clips of the small LLP: one of each split."""
    folder.mkdir()
    for name, *_ in LLP_CLIPS.values():
        make_video(folder / f"{name}.mp4", places)


def make_store(folder: Path, places: Places) -> None:
    """The features of the eight videos, with their events."""
    videos = places["own"]
    events = ["--events", str(videos / "events.csv"), "--out", str(folder)]
    shares = ["--segments", "10", "--split", "0.5,0.25,0.25"]
    done("extract", str(videos / "videos"), *events, *shares, *SMALL.split())


def train(line: str, store: str) -> Callable[[Path, Places], None]:
    """Return what trains a run for two steps on a store."""

    def make(folder: Path, places: Places) -> None:
        given = ["--data", str(places[store]), "--output-dir", str(folder), *STEPS.split()]
        done(f"train {line}", *given)

    return make


def make_pseudo(folder: Path, places: Places) -> None:
    """Logits and features of the three clips of a small LLP, and its annotations."""
    pseudo.llp_folder(folder / "LLP_DIR")
    for number, name in enumerate(("CLIP", "CLAP")):
        pseudo.arrays(folder / f"{name}_LOGITS", (10, 25), seed=number)
    pseudo.frame_folders(folder / "FRAMES")
    pseudo.waveforms(folder / "WAVEFORMS")


MADE: dict[str, Callable[[Path, Places], object]] = {
    "weights": make_weights,
    "cache": make_cache,
    "own": make_videos,
    "video": make_video,
    "llp videos": make_llp_videos,
    "store": make_store,
    "avvp": demo("avvp"),
    "avel": demo("avel"),
    "ovavel": demo("ovavel"),
    "llp": lambda folder, places: llp_tree(folder),
    "ave": lambda folder, places: ave_tree(folder),
    "ovave": lambda folder, places: with_vectors(write_ovave(folder)),
    "pseudo": make_pseudo,
    "run": train("--task avvp --encoder han --decoder leap --supervision pseudo", "store"),
    "weak run": train("--task avvp --encoder han --decoder mmil --supervision weak", "avvp"),
    "held run": train(f"--task avvp --encoder han --decoder leap --held-out {HELD}", "avvp"),
    "other run": train("--task avvp --encoder han --decoder dch --supervision weak", "avvp"),
    "avel run": train("--task avel --encoder ave --decoder leap", "avel"),
}
"""What can be asked for, by name."""


class Places:
    """Makes each thing once, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self.made:
            target = self.folder / name.replace(" ", "-")
            MADE[name](target, self)
            self.made[name] = target
        return self.made[name]

    def put(self, name: str, target: Path) -> None:
        """Copy a thing, or "thing/part", to a place; a text after ":" is a file's content."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith(":"):
            target.write_text(name[1:], encoding="utf-8")
            return
        thing, _, part = name.partition("/")
        source = self[thing] / part if part else self[thing]
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
