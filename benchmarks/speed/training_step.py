"""Training steps against plain eager models, at the batch size of the published recipes.

A step is forward, loss, backward and Adam, with dropout. The baseline is the plain model of
`tests/plain` with a plain loss and torch's default Adam; ours goes through the product's own step,
losses and optimiser. Both read the same inputs and start from the same weights, and their outputs
and losses in evaluation mode are compared before anything is timed; in bfloat16, our outputs are
compared with ours in float32. A share of the peak counts the operations of products and
convolutions in our step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from avplatform.config.optim import OptimConfig
from avplatform.models.contracts import Output
from avplatform.models.stem import pool_frames
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step
from benchmarks.timing import Comparison, Setting, Side
from tests.plain.steps import (
    ROWS,
    TOLERANCE,
    Row,
    comparable,
    largest_difference,
    our_model,
    pair,
    plain_loss,
)

Step = Callable[[], Any]
ROUNDING = 0.2
"""The largest difference of outputs in bfloat16, as a share of the output's largest value or 1."""


class Autocast(nn.Module):
    """Our model as a bfloat16 run calls it: the forward pass under autocast, the loss outside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor | None) -> Output:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(*inputs)


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed: every model, the stem, and Adam."""
    found: dict[str, Callable[[], Iterable[Comparison]]] = {
        name: partial(model, name, row, setting.bf16) for name, row in ROWS.items()
    }
    return {**found, "stem": stem, "adam": adam}


def model(name: str, row: Row, bf16: bool) -> Iterable[Comparison]:
    """Yield a step of one model, in float32 and, where the CPU has it, in bfloat16."""
    task, ours, plain, batch, labels = pair(row)
    difference = largest_difference(row, task, ours, plain, batch, labels)
    half = Autocast(copy.deepcopy(ours)) if bf16 else None
    rounding = rounded(row, ours, half, batch) if half else 0.0
    plain_batch = batch
    if row.double:
        plain, plain_batch = plain.double(), batch.to("cpu", torch.float64)
    step = our_step(task, ours.train(), batch)
    with FlopCounterMode(display=False) as counter:
        step()
    title = f"{row.encoder} + {row.decoder}, batch {row.batch}"
    work = counter.get_total_flops()
    sides = [
        Side(
            name=f"{title}, fp32{' (plain fp64)' if row.double else ''}",
            run=step,
            difference=lambda: difference,
            tolerance=TOLERANCE,
            floor=row.fp32[0],
            aim=row.fp32[1],
            work=work,
        )
    ]
    if half:
        sides.append(
            Side(
                name=f"{title}, bf16",
                run=our_step(task, half.train(), batch),
                difference=lambda: rounding,
                tolerance=ROUNDING,
                floor=row.bf16[0],
                aim=row.bf16[1],
                work=work,
                kind="bfloat16",
            )
        )
    baseline = plain_step(row, plain.train(), plain_batch, labels)
    yield Comparison(title=title, plain=baseline, sides=sides, rounds=row.rounds)


@torch.no_grad()
def rounded(row: Row, ours: nn.Module, half: nn.Module, batch: Batch) -> float:
    """Return how far our outputs in bfloat16 are from those in float32, as the largest share."""
    exact, found = (
        comparable(row, *model.eval()(batch.audio, batch.visual, batch.motion))
        for model in (ours, half)
    )
    pairs = zip(exact, found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1)) for a, b in pairs)


def plain_step(row: Row, model: nn.Module, batch: Batch, labels: Tensor | None) -> Step:
    """Return the step of the baseline: zero, forward, loss, backward and torch's default Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        plain_loss(row, model(batch, labels), batch).backward()
        optimizer.step()

    return step


def our_step(task: Task, model: nn.Module, batch: Batch) -> Step:
    """Return the product's step."""
    optimizer = build_optimizer(model, OptimConfig(lr=1e-5))
    return lambda: optimisation_step(model, task, batch, optimizer, lr=1e-5, measure_norm=False)


def stem() -> Iterable[Comparison]:
    """Yield the visual map on 80 frames before their mean, against the mean before the map."""
    torch.manual_seed(0)
    frames, layer, grad = torch.randn(16, 80, 2048), nn.Linear(2048, 512), torch.randn(16, 10, 512)
    late = lambda: layer(frames).unflatten(1, (10, 8)).mean(dim=2)  # noqa: E731
    early = lambda: layer(pool_frames(frames, 10))  # noqa: E731
    side = Side(
        name="stem, forward and backward, visual map after the mean, batch 16",
        run=lambda: early().backward(grad),
        difference=lambda: float((late() - early()).abs().max()),
        tolerance=TOLERANCE,
        floor=6.0,
        repeats=5,
    )
    yield Comparison(title=side.name, plain=lambda: late().backward(grad), sides=[side], rounds=3)


def adam() -> Iterable[Comparison]:
    """Yield the product's Adam against torch's default one, on the parameters of HAN + MMIL."""
    torch.manual_seed(0)
    plain = our_model(ROWS["han"])[1]
    ours = copy.deepcopy(plain)
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    default = torch.optim.Adam(plain.parameters(), lr=1e-5).step
    fused = build_optimizer(ours, OptimConfig(lr=1e-5)).step

    def difference() -> float:
        default(), fused()
        pairs = zip(plain.parameters(), ours.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    side = Side(
        name=f"Adam on {plain.num_parameters / 1e6:.1f} M parameters",
        run=fused,
        difference=difference,
        tolerance=1e-6,
        floor=2.0,
        repeats=5,
    )
    yield Comparison(title=side.name, plain=default, sides=[side], rounds=3, plain_repeats=5)
