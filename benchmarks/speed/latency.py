"""One clip through exported networks, against plain eager models, at batch 1.

The baseline is the plain model of `tests/plain`, which reads 80 frames a clip (LLP) or maps (AVE);
CMBS's computes in float64, as published. Ours is the ONNX file of `avplatform export` with the same
weights on onnxruntime, and the mean of the frames of a segment before it; its outputs are compared
with the plain model's and with those of the model that was exported. `python -m
benchmarks.speed.latency [NAME ...]` shows instead where onnxruntime spends its time.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avplatform.exported.about import about_of, as_texts
from avplatform.exported.graph import trace, values_of
from avplatform.exported.onnx_form import onnx_bytes
from avplatform.exported.runtime import ExportedModel
from avplatform.models.stem import pool_frames
from benchmarks.timing import Comparison, Setting, Side
from tests.plain.steps import ROWS, TOLERANCE, largest_difference, pair

GOALS = {
    "han": (2.8, 4.0),
    "mmpyr": (2.8, 4.0),
    "leap": (2.8, 4.0),
    "ave": (1.6, 2.5),
    "psp": (1.6, 2.5),
    "cmbs": (2.8, 4.0),
}
"""By model, the ratio that must be reached, and the one that is aimed at."""
REPEATS = 20
"""How often each side runs in a round, so that most runs find the weights in the caches."""


def left_out() -> str:
    """Return which package of the export is missing, or nothing."""
    needs = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    return f"{missing[0]} is not installed, see the extra `export`" if missing else ""


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed: every model."""
    return {name: partial(one_clip, name) for name in GOALS}


def one_clip(name: str) -> Iterable[Comparison]:
    """Yield one clip through an exported network, with the weights of the plain model."""
    row = dataclasses.replace(ROWS[name], batch=1)
    task, model, plain, batch, labels = pair(row)
    difference = largest_difference(row, task, model, plain, batch, labels)
    exported = ExportedModel(content_of(model))
    read = [batch.audio, batch.visual, batch.motion]
    with torch.inference_mode():
        wanted, got = (values_of(m(*pooled(*read)).parse.for_decisions) for m in (model, exported))
    exact = max(float((got[key] - values).abs().max()) for key, values in wanted.items())
    if row.double:
        plain, batch = copy.deepcopy(plain).double(), batch.to("cpu", torch.float64)
    title = f"{row.encoder} + {row.decoder}, one clip"
    side = Side(
        name=f"{title}, exported{' (plain fp64)' if row.double else ''}",
        run=torch.inference_mode()(lambda: exported(*pooled(*read))),
        difference=lambda: max(difference, exact),
        tolerance=TOLERANCE,
        floor=GOALS[name][0],
        aim=GOALS[name][1],
        repeats=REPEATS,
    )
    baseline = torch.inference_mode()(lambda: plain(batch, labels))
    yield Comparison(title=title, plain=baseline, sides=[side], rounds=3, plain_repeats=REPEATS)


def content_of(model: Any) -> bytes:
    """Return the ONNX file of a model."""
    traced = trace(model.eval())
    return onnx_bytes(traced, as_texts(about_of(model, traced)))


def pooled(audio: Any, visual: Any, motion: Any) -> tuple[Any, ...]:
    """Return what an exported network reads: one visual vector, or map, for each segment."""
    return audio, visual if visual.ndim > 3 else pool_frames(visual, audio.shape[1]), motion


def profile(name: str, runs: int = 50) -> None:
    """Print how the time of onnxruntime is spent, by the kind of node."""
    import onnxruntime

    _, model, _, batch, _ = pair(dataclasses.replace(ROWS[name], batch=1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    content = content_of(model)
    exported = ExportedModel(content)
    exported.session = onnxruntime.InferenceSession(content, options)
    with torch.inference_mode():
        for _ in range(runs):
            exported(*pooled(batch.audio, batch.visual, batch.motion))
    file = Path(exported.session.end_profiling())
    events = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    spent, count = Counter[str](), Counter[str]()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            count[event["args"]["op_name"]] += 1
    for kind, micros in spent.most_common(12):
        print(f"{name} {kind:<24} {count[kind] // runs:>4} nodes {micros / runs / 1e3:8.3f} ms")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or GOALS:
        profile(chosen)
