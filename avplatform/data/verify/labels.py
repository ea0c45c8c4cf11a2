"""Rules that the labels of a clip obey among themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.store.schema import DataSpec

Odd = tuple[str, str, int, str]
"""Level, kind, position among the clips, and text."""


def check_labels_agree(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    """Yield which of some clips have labels that contradict each other, or that stand where none is known."""
    for name in spec.labels:
        if not spec.known(name, split):
            for i in np.flatnonzero(columns[name].reshape(len(columns["row"]), -1).any(axis=1)):
                yield (
                    "error",
                    "label where none is known",
                    int(i),
                    f"{name} is not known in {split}, and is not zero",
                )
    yield from RULES.get(spec.task, _no_rules)(spec, split, columns)


def _avel(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    """Segments are the video's class or background."""
    if not {"segment", "video"} <= set(spec.labels):
        return
    segment, video = columns["segment"], columns["video"]
    event = segment != BACKGROUND
    for i in np.flatnonzero((event & (segment != video[:, None])).any(axis=1)):
        found = _names(spec, np.unique(segment[i][event[i]]))
        text = f"segments say {found}, the video label {_names(spec, video[i : i + 1])}"
        yield "error", "segments contradict the video label", int(i), text
    for i in np.flatnonzero(~event.any(axis=1) & (video != BACKGROUND)):
        text = f"the video label is {_names(spec, video[i : i + 1])}, and no segment has it"
        yield "warning", "event of no length", int(i), text


def _avvp(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    """Segment labels lie inside the weak label; in the real data the dense ones do not always, so none of it is an error."""
    if "weak" not in spec.labels:
        return
    weak = columns["weak"].astype(bool)
    for i in np.flatnonzero(~weak.any(axis=1)):
        yield "warning", "clip without a class", int(i), "its weak label is empty"
    for name in ("pseudo_audio", "pseudo_visual"):
        if name in spec.labels and spec.known(name, split):
            outside = np.asarray(columns[name].any(axis=1)) & ~weak  # [N, C]
            for i in np.flatnonzero(outside.any(axis=1)):
                text = f"{name} has {_names(spec, np.flatnonzero(outside[i]))}"
                yield "warning", "pseudo-label outside the weak label", int(i), text
    dense = [
        name
        for name in ("dense_audio", "dense_visual")
        if name in spec.labels and spec.known(name, split)
    ]
    if len(dense) == 2:
        union = np.asarray(
            np.concatenate([columns[name] for name in dense], axis=1).any(axis=1)
        )  # [N, C]
        for i in np.flatnonzero((union != weak).any(axis=1)):
            parts = [("only dense", union[i] > weak[i]), ("only weak", weak[i] > union[i])]
            text = "; ".join(
                f"{what}: {_names(spec, np.flatnonzero(part))}"
                for what, part in parts
                if part.any()
            )
            yield "warning", "weak label is not the union of the dense labels", int(i), text


def _no_rules(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    yield from ()


RULES: dict[str, Callable[[DataSpec, str, dict[str, np.ndarray]], Iterator[Odd]]] = {
    "avel": _avel,
    "avvp": _avvp,
}


def _names(spec: DataSpec, indices: np.ndarray) -> str:
    return ", ".join(
        spec.classes[i] if 0 <= i < len(spec.classes) else f"class {i}" for i in indices.tolist()
    )
