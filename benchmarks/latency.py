"""Time one clip through exported networks and plain eager models: `python -m benchmarks.latency`.

The baseline is the plain model of `tests/plain`, which reads 80 frames a clip (LLP) or maps (AVE);
CMBS's computes in float64, as published. Ours is the ONNX file of `avplatform export` with the same
weights on onnxruntime, and the mean of the frames of a segment before it. Both run on one thread,
in turn, and are timed by the CPU time of the process; their outputs are compared before. A figure
is the median over rounds of the ratio within a round. `--only NAME ...` chooses rows, `--rounds N`
sets how often each is timed, and `--profile` shows where onnxruntime spends its time.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avplatform.exported.about import about_of, as_texts
from avplatform.exported.graph import trace, values_of
from avplatform.exported.onnx_form import onnx_bytes
from avplatform.exported.runtime import ExportedModel
from avplatform.models.stem import pool_frames
from tests.plain.steps import ROWS, TOLERANCE, largest_difference, pair

GOALS = {
    "han": (2.8, 4.0),
    "mmpyr": (2.8, 4.0),
    "leap": (2.8, 4.0),
    "ave": (1.6, 2.5),
    "psp": (1.6, 2.5),
    "cmbs": (2.8, 4.0),
}
"""By row, the ratio that must be reached, and the one that is aimed at."""
REPEATS = 5
"""How often each side runs in a round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    """Both sides of a row, and the largest difference between their outputs."""

    name: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    model: ExportedModel
    difference: float


def sides(name: str) -> Sides:
    """Return both sides of a row, on one clip and with the same weights."""
    row = dataclasses.replace(ROWS[name], batch=1)
    task, model, plain, batch, labels = pair(row)
    difference = largest_difference(row, task, model, plain, batch, labels)
    traced = trace(model)
    exported = ExportedModel(onnx_bytes(traced, as_texts(about_of(model, traced))))
    read = [batch.audio, batch.visual, batch.motion]
    with torch.inference_mode():
        wanted, got = (values_of(m(*pooled(*read)).parse.for_decisions) for m in (model, exported))
    exact = max(float((got[key] - values).abs().max()) for key, values in wanted.items())
    if row.double:
        plain, batch = copy.deepcopy(plain).double(), batch.to("cpu", torch.float64)
    title = f"{name} {row.encoder} + {row.decoder}{' (plain fp64)' if row.double else ''}"
    return Sides(
        name=title,
        plain=lambda: plain(batch, labels),
        ours=lambda: exported(*pooled(*read)),
        model=exported,
        difference=max(difference, exact),
    )


def pooled(audio: Any, visual: Any, motion: Any) -> tuple[Any, ...]:
    """Return what an exported network reads: one visual vector, or map, for each segment."""
    return audio, visual if visual.ndim > 3 else pool_frames(visual, audio.shape[1]), motion


@torch.inference_mode()
def measure(both: Sides, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of one clip in each round, of the plain side and of ours."""
    times: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 1):
        for run, found in zip((both.plain, both.ours), times, strict=True):
            started = time.process_time()
            for _ in range(REPEATS):
                run()
            if number:
                found.append((time.process_time() - started) / REPEATS)
    return times


def row_of(name: str, rounds: int) -> tuple[str, str]:
    """Return the line of a row, and what it says of its goal."""
    both = sides(name)
    if not both.difference < TOLERANCE:
        raise SystemExit(f"{both.name}: the outputs differ by {both.difference:.2e}")
    plain, ours = measure(both, rounds)
    ratios = [p / o for p, o in zip(plain, ours, strict=True)]
    ratio, (floor, aim) = statistics.median(ratios), GOALS[name]
    said = "aim" if ratio >= aim else "floor" if ratio >= floor else "MISSED"
    p, o = (f"{1e3 * statistics.median(values):.2f}" for values in (plain, ours))
    spread = f"x{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    line = f"| {both.name} | {p} | {o} | {spread} | {floor} | {aim} | {both.difference:.1e} "
    return f"{line}| {said} |", said


def profile(name: str) -> None:
    """Print how the time of onnxruntime is spent, by the kind of node."""
    import onnxruntime

    row = dataclasses.replace(ROWS[name], batch=1)
    _, model, _, batch, _ = pair(row)
    traced = trace(model.eval())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    content = onnx_bytes(traced, as_texts(about_of(model, traced)))
    exported = ExportedModel(content)
    exported.session = onnxruntime.InferenceSession(content, options)
    with torch.inference_mode():
        for _ in range(50):
            exported(*pooled(batch.audio, batch.visual, batch.motion))
    file = Path(exported.session.end_profiling())
    events = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    spent: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            count[event["args"]["op_name"]] += 1
    for kind, micros in spent.most_common(12):
        print(f"{name} {kind:<24} {count[kind] // 50:>4} nodes {micros / 50 / 1e3:8.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*GOALS], default=[*GOALS])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.profile:
        for name in options.only:
            profile(name)
        return
    print(
        "| row | plain ms | exported ms | ratio (lowest to highest) | floor | aim | difference | |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.only:
        print(row_of(name, options.rounds)[0], flush=True)


if __name__ == "__main__":
    main()
