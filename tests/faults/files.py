"""Small official trees without fault, and faults to plant in them; see `planted.py`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.ave.classes import EVENTS
from avplatform.data.adapters.ave.derived import segment_onehot
from avplatform.data.adapters.llp.classes import CLASSES


@dataclass
class Fault:
    """A fault: its kind, how it is planted in a folder, and what one message must say."""

    kind: str
    plant: Callable[[Path], Any]
    named: tuple[str, ...]


# Trees and stores without fault


def clip(i: int) -> str:
    return f"video-{i:05d}_{i}_{i + 10}"


def llp_annotations(folder: Path, clips: int) -> Path:
    """Write csv files: 2/3 train, 1/6 validation, 1/6 test; every clip has one of four classes."""
    folder.mkdir(parents=True)
    bounds = {
        "AVVP_train.csv": (0, 4 * clips // 6),
        "AVVP_val_pd.csv": (4 * clips // 6, 5 * clips // 6),
    }
    bounds["AVVP_test_pd.csv"] = (5 * clips // 6, clips)
    for name, (start, stop) in bounds.items():
        lines = [f"{clip(i)}\t{CLASSES[i % 4]}\n" for i in range(start, stop)]
        (folder / name).write_text("filename\tevent_labels\n" + "".join(lines))
    for name, onset in (("AVVP_eval_audio.csv", 0), ("AVVP_eval_visual.csv", 3)):
        lines = [
            f"{clip(i)}\t{onset}\t{onset + 5}\t{CLASSES[i % 4]}\n"
            for i in range(4 * clips // 6, clips)
        ]
        (folder / name).write_text("filename\tonset\toffset\tevent_labels\n" + "".join(lines))
    return folder


def ave_annotations(folder: Path, rows: int) -> Path:
    """Write Annotations.txt, orders, and labels.h5: 2/3 train, 1/6 validation, 1/6 test."""
    folder.mkdir(parents=True)
    lines = [f"{EVENTS[i % 3]}&event-{i:05d}&good&{i % 3}&{6 + i % 4}\n" for i in range(rows)]
    (folder / "Annotations.txt").write_text("".join(lines))
    parts = {
        "train": range(4 * rows // 6),
        "val": range(4 * rows // 6, 5 * rows // 6),
        "test": range(5 * rows // 6, rows),
    }
    for name, part in parts.items():
        write_h5(folder / f"{name}_order.h5", np.array(part), key="order")
    write_h5(folder / "labels.h5", segment_onehot(read_ave(folder).segment))
    return folder


def write_h5(file: Path, values: np.ndarray, key: str = "avadataset") -> None:
    file.unlink(missing_ok=True)
    with h5py.File(file, "w") as h5:
        h5[key] = values


# Faults of LLP's files


def npy(place: str, i: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Return a plant that changes a clip's array."""

    def plant(tree: Path) -> None:
        file = tree / place / f"video-{i:05d}.npy"
        values = np.load(file)
        file.unlink()  # trees share their files by hard links
        np.save(file, change(values))

    return plant


def bytes_of(place: str, i: int, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda tree: overwrite(tree / place / f"video-{i:05d}.npy", change)


def overwrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(change(content))


def add_line(name: str, line: str) -> Callable[[Path], None]:
    return lambda tree: overwrite(tree / name, lambda content: content + f"{line}\n".encode())


def spoil(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values.flat[values.size // 2] = value
    return values


def pickled(tree: Path) -> None:
    file = tree / "feats/vggish/video-00003.npy"
    file.unlink()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def outside(values: np.ndarray) -> np.ndarray:
    values = np.zeros_like(values)
    values[2, 20] = 1
    return values


def llp_together(clips: int) -> list[Fault]:
    """Return faults that cost a clip or are odd, to be planted all in one tree.

    Clip n belongs to split n // (clips / 6).
    """
    res, vgg, motion = "feats/res152", "feats/vggish", "feats/r2plus1d_18"
    dense, last = "AVVP_eval_audio.csv", clips - 1
    return [
        Fault(
            "truncated file",
            bytes_of(res, 0, lambda b: b[: len(b) // 2]),
            (clip(0), "res152/video-00000.npy", "truncated"),
        ),
        Fault(
            "empty file",
            bytes_of(vgg, 1, lambda b: b""),
            (clip(1), "vggish/video-00001.npy", "is empty"),
        ),
        Fault(
            "file of another kind",
            bytes_of(vgg, 2, lambda b: b"no array"),
            (clip(2), "video-00002.npy", "is not a .npy file"),
        ),
        Fault("pickled objects", pickled, (clip(3), "vggish/video-00003.npy", "pickled")),
        Fault(
            "82 frames",
            npy(res, 4, lambda a: np.concatenate([a, a[:2]])),
            (clip(4), "res152", "(82, 2048) instead of (80,"),
        ),
        Fault(
            "wrong width",
            npy(motion, 5, lambda a: a[:, :100]),
            (clip(5), "r2plus1d_18/video-00005.npy", "(10, 100)"),
        ),
        Fault(
            "NaN in a file",
            npy(res, 6, lambda a: spoil(a, np.nan)),
            (clip(6), "res152/video-00006.npy", "NaN or infinite"),
        ),
        Fault(
            "infinity in a file",
            npy(vgg, 7, lambda a: spoil(a, np.inf)),
            (clip(7), "vggish/video-00007", "NaN or infinite"),
        ),
        Fault(
            "too large for float16",
            npy(vgg, 8, lambda a: spoil(a, 1e5)),
            (clip(8), "vggish/video-00008", "too large"),
        ),
        Fault(
            "whole numbers",
            npy(motion, 9, lambda a: a.astype(np.int64)),
            (clip(9), "r2plus1d_18/video-00009.npy", "int64"),
        ),
        Fault(
            "missing file",
            lambda t: (t / motion / "video-00010.npy").unlink(),
            (clip(10), "video-00010.npy", "is missing"),
        ),
        Fault(
            "pseudo-label that is no label",
            npy("CLIP/segment_pseudo_labels", 11, lambda a: a * 0 + 2),
            (clip(11), "segment_pseudo_labels/video-00011.npy", "other than 0 and 1"),
        ),
        Fault(
            "pseudo-label outside the weak label",
            npy("CLAP/segment_pseudo_labels", 12, outside),
            (clip(12), "pseudo-label outside the weak label", CLASSES[20]),
        ),
        Fault(
            "stray file",
            lambda t: shutil.copy(t / vgg / "video-00013.npy", t / vgg / "video-00013`.npy"),
            ("video-00013`.npy",),
        ),
        Fault(
            "reversed span",
            add_line(dense, f"{clip(last)}\t9\t2\tDog"),
            ("reversed event", dense, clip(last)),
        ),
        Fault(
            "span of no length",
            add_line(dense, f"{clip(last)}\t4\t4\tDog"),
            ("event of no length", dense, clip(last)),
        ),
        Fault(
            "orphan id",
            add_line(dense, "stranger000_0_10\t1\t2\tDog"),
            ("clip outside all splits", dense, "stranger000_0_10"),
        ),
        Fault(
            "row given twice",
            add_line(dense, f"{clip(last)}\t0\t5\t{CLASSES[last % 4]}"),
            ("row given twice", dense, clip(last)),
        ),
        Fault(
            "back-tick in an id",
            add_line(dense, "`\t0\t5\tDog"),
            ("dense audio annotations of another version", dense),
        ),
        Fault(
            "class named twice",
            add_line("AVVP_test_pd.csv", f"{clip(99)}\tDog,Dog"),
            ("class named twice", "AVVP_test_pd.csv", clip(99)),
        ),
    ]


def llp_alone(clips: int) -> list[Fault]:
    """Return faults that make the whole impossible."""
    line = 4 * clips // 6 + 2
    dense = 2 * clips // 6 + 2
    return [
        Fault("id given twice", add_line("AVVP_train.csv", f"{clip(3)}\tDog"), (clip(3), "twice")),
        Fault(
            "unknown class",
            add_line("AVVP_train.csv", f"{clip(98)}\tDgo"),
            (f"AVVP_train.csv, line {line}", "'Dgo'"),
        ),
        Fault(
            "seconds that are none",
            add_line("AVVP_eval_visual.csv", f"{clip(clips - 1)}\tx\t3\tDog"),
            (f"line {dense}", "'x'"),
        ),
        Fault(
            "columns missing",
            add_line("AVVP_train.csv", clip(98)),
            (f"AVVP_train.csv, line {line}", "1 column instead of 2"),
        ),
    ]


# Faults of AVE's files


def change_h5(
    name: str, change: Callable[[Any], None], key: str = "avadataset"
) -> Callable[[Path], None]:
    def plant(tree: Path) -> None:
        overwrite(tree / name, lambda content: content)  # a copy of its own
        with h5py.File(tree / name, "r+") as h5:
            change(h5[key])

    return plant


def put(index: Any, value: Any) -> Callable[[Any], None]:
    return lambda dataset: dataset.__setitem__(index, value)


def ave_together() -> list[Fault]:
    return [
        Fault(
            "NaN in a row",
            change_h5("visual_feature.h5", put((2, 1, 3, 3, 7), np.nan)),
            ("event-00002", "visual_feature.h5", "row 2"),
        ),
        Fault(
            "label file that disagrees",
            change_h5("labels.h5", put(3, 0.0)),
            ("disagrees", "labels.h5", "row 3"),
        ),
    ]


def ave_alone(rows: int) -> list[Fault]:
    short = np.zeros((rows - 1, 10, 128))
    first = np.zeros((rows, 10, 512, 7, 7), np.float32)
    order = f"between 0 and {rows - 1}"
    return [
        Fault(
            "truncated h5",
            lambda t: overwrite(t / "visual_feature.h5", lambda b: b[: len(b) // 2]),
            ("visual_feature.h5",),
        ),
        Fault(
            "wrong number of rows",
            lambda t: write_h5(t / "audio_feature.h5", short),
            ("audio_feature.h5", f"({rows - 1}, 10, 128)"),
        ),
        Fault(
            "channels first",
            lambda t: write_h5(t / "visual_feature.h5", first),
            ("visual_feature.h5", "channels come last"),
        ),
        Fault(
            "orders that overlap",
            lambda t: write_h5(t / "val_order.h5", np.array([0]), "order"),
            ("share rows", "row 0"),
        ),
        Fault(
            "order out of range",
            lambda t: write_h5(t / "val_order.h5", np.array([rows]), "order"),
            ("val_order.h5", order),
        ),
    ]
