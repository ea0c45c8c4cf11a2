"""Small trees of official files for the tests of importing, with random features."""

import functools
import os

import h5py
import numpy as np
import pytest

from avplatform.data.importing import ImportOptions, import_data
from tests.tasks.test_avel import write_ave
from tests.tasks.test_avvp import write_llp


def bring_in(dataset, source, out, **options):
    """Import with options of the command, and those that only the function has."""
    extra = {
        name: options.pop(name) for name in ("rows_per_shard", "note", "card") if name in options
    }
    return import_data(
        ImportOptions(dataset=dataset, source=str(source), out=str(out), **options), **extra
    )


bring_in_llp = functools.partial(bring_in, "llp")

real = pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)

LLP_CLIPS = {
    "train": [f"train-{i:05d}_{i}_{i + 10}" for i in range(6)],
    "validation": ["b_b-bbbbbbb_30_40"],
    "test": ["ccccccccccc_101.8_111.8"],
}
AVE_LINES = [
    f"{name}&video_{i:05d}&good&{i % 3}&{10 - i % 4}"
    for i, name in enumerate(["Church bell"] * 5 + ["Bark"] * 7)
]
AVE_ORDERS = {"train": [4, 1, 0, 3, 8, 5, 11, 7], "val": [2, 6], "test": [10, 9]}


def llp_arrays(clip, dtype=np.float32):
    rng = np.random.default_rng(list(clip.encode()))
    shapes = {"vggish": (10, 128), "res152": (80, 2048), "r2plus1d_18": (10, 512)}
    return {name: rng.random(shape).astype(dtype) for name, shape in shapes.items()}


def llp_tree(folder, *, inside="", pseudo=True):
    """Eight clips; training clips are all dogs that bark from second 2 to 6."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / inside).mkdir(exist_ok=True)
    write_llp(folder / inside, train="\n".join(f"{clip}\tDog" for clip in LLP_CLIPS["train"]))
    for clip in sum(LLP_CLIPS.values(), []):
        for name, values in llp_arrays(clip).items():
            save(folder / inside / "feats" / name, clip, values)
        if pseudo:
            labels = np.zeros((10, 25), dtype=np.int64)
            labels[2:6, 24 if clip.startswith("c") else 3] = 1
            for model in ("CLIP", "CLAP"):
                save(folder / inside / model / "segment_pseudo_labels", clip, labels)
    return folder


def save(folder, clip, values):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{clip[:11]}.npy", values)


def cut(file):
    """Take the last hundred bytes from a file."""
    file.write_bytes(file.read_bytes()[:-100])


def ave_arrays(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {"audio": rng.random((rows, 10, 128)), "visual": rng.random((rows, 10, 7, 7, 512))}


def ave_tree(folder, *, noisy=2, **layout):
    """Twelve clips of two classes in float64, and background clips; `layout` is the h5 files'."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ave(folder, AVE_LINES, AVE_ORDERS)
    for suffix, rows, seed in (("", len(AVE_LINES), 0), ("_noisy", noisy, 1)):
        if rows:
            for name, values in ave_arrays(rows, seed).items():
                write_h5(
                    folder / f"{name}_feature{suffix}.h5",
                    values,
                    **(layout if name == "visual" and not suffix else {}),
                )
    if noisy:
        write_h5(folder / "labels_noisy.h5", np.eye(29, dtype=np.float32)[[28] * noisy])
    return folder


def write_h5(file, values, **layout):
    with h5py.File(file, "w") as h5:
        h5.create_dataset("avadataset", data=values, **layout)


def files(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
