"""Time training steps against plain eager models: `python -m benchmarks.training_step`.

A step is forward, loss, backward and Adam, with dropout, at the batch size of the published
recipes, on one thread. The baseline is the plain model of `tests/plain` with a plain loss and
torch's default Adam; ours goes through the product's own step, losses and optimiser. Both read the
same inputs and start from the same weights, and their outputs in evaluation mode are compared
before anything is timed. All are timed in turn in one process, by its CPU time. A figure is the
median over rounds of the ratio within a round (the share of the GEMM peak compares the best with
the best). `--only NAME ...` chooses rows, and `--rounds N` sets how often each is timed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
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
from tests.plain.steps import (
    ROWS,
    TOLERANCE,
    Row,
    largest_difference,
    our_model,
    pair,
    plain_loss,
)

Step = Callable[[], Any]


class Autocast(nn.Module):
    """Our model as a bfloat16 run calls it: the forward pass under autocast, the loss outside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor | None) -> Output:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(*inputs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=[*ROWS, "stem", "adam"], default=[*ROWS, "stem", "adam"]
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bf16 = has_bf16()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread, "
        f"{torch.backends.cpu.get_cpu_capability()}, bf16: {bf16}"
    )
    if not bf16:
        print("bf16 rows are left out: this CPU has neither avx512_bf16 nor AMX")
    print(
        "\n| row | batch | plain ms | ours ms | ratio (lowest to highest) | goal | |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    for name in options.only:
        if name == "stem":
            stem_row(options.rounds * 3)
        elif name == "adam":
            adam_row(options.rounds)
        else:
            model_rows(name, ROWS[name], options.rounds * ROWS[name].rounds, bf16)


def model_rows(name: str, row: Row, rounds: int, bf16: bool) -> None:
    """Time a model and print its rows."""
    task, model, plain, batch, labels = pair(row)
    difference = largest_difference(row, task, model, plain, batch, labels)
    if not difference < TOLERANCE:
        raise SystemExit(f"{name}: our outputs differ from the plain model's by {difference:.2e}")

    plain_batch = batch
    if row.double:
        plain, plain_batch = plain.double(), batch.to("cpu", torch.float64)
    steps: dict[str, Step] = {
        "plain": plain_step(row, plain.train(), plain_batch, labels),
        "fp32": our_step(task, model.train(), batch),
    }
    if bf16:
        steps["bf16"] = our_step(task, Autocast(copy.deepcopy(model)).train(), batch)
    with FlopCounterMode(display=False) as counter:
        steps["fp32"]()
    if row.peak:
        square = torch.randn(1024, 1024)
        steps["gemm"] = lambda: square @ square
    times = measure(steps, rounds)
    title = f"{name} {row.encoder} + {row.decoder}"
    report(
        f"{title}, fp32{' (plain fp64)' if row.double else ''}",
        row.batch,
        times["plain"],
        times["fp32"],
        row.fp32,
    )
    if bf16:
        report(f"{title}, bf16", row.batch, times["plain"], times["bf16"], row.bf16)
    if row.peak:
        speed, peak = (
            counter.get_total_flops() / min(times["fp32"]),
            2 * 1024**3 / min(times["gemm"]),
        )
        share, reached = speed / peak, f"{speed / 1e9:.0f} of {peak / 1e9:.0f} GF/s"
        goal = f"{row.peak[0]}: >= {row.peak[1]:.2f}"
        print(
            f"| {title}, share of GEMM peak | {row.batch} | | {reached} | {share:.2f} | {goal} "
            f"| {verdict(share, row.peak)} |"
        )
    print(
        f"| {name}: largest difference of outputs in eval mode | {row.batch} "
        f"| | | {difference:.1e} | < {TOLERANCE} | |",
        flush=True,
    )


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


def stem_row(rounds: int) -> None:
    """Time the visual map on 80 frames followed by the mean, against the mean followed by the map.

    Both run forward and backward.
    """
    torch.manual_seed(0)
    frames, layer, grad = torch.randn(16, 80, 2048), nn.Linear(2048, 512), torch.randn(16, 10, 512)
    late = lambda: layer(frames).unflatten(1, (10, 8)).mean(dim=2).backward(grad)  # noqa: E731
    early = lambda: layer(pool_frames(frames, 10)).backward(grad)  # noqa: E731
    times = measure({"plain": late, "ours": early}, rounds)
    report("stem, visual map after the mean, fp32", 16, times["plain"], times["ours"], ("G8", 6.0))


def adam_row(rounds: int) -> None:
    """The product's Adam against torch's default one, on the parameters of HAN + MMIL."""
    torch.manual_seed(0)
    plain = our_model(ROWS["han"])[1]
    ours = copy.deepcopy(plain)
    for model in (plain, ours):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
    default = torch.optim.Adam(plain.parameters(), lr=1e-5)
    times = measure(
        {"plain": default.step, "ours": build_optimizer(ours, OptimConfig(lr=1e-5)).step},
        rounds * 3,
    )
    report(
        f"Adam on {plain.num_parameters / 1e6:.1f} M parameters",
        "",
        times["plain"],
        times["ours"],
        ("G18", 2.0),
    )


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Time the steps in turn, after two untimed rounds.

    The CPU time of the process is measured: on one thread, it is the wall time of an idle machine,
    and other programs disturb it less.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if number >= 2:
                times[name].append(time.process_time() - started)
    return times


def report(
    title: str, batch: Any, plain: list[float], ours: list[float], goal: tuple[str, float]
) -> None:
    """Print one row of the table."""
    ratios = [a / b for a, b in zip(plain, ours, strict=True)]
    ratio, (p, o) = statistics.median(ratios), (statistics.median(x) * 1e3 for x in (plain, ours))
    spread = f"x{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(
        f"| {title} | {batch} | {p:.1f} | {o:.1f} | {spread} "
        f"| {goal[0]}: >= {goal[1]} | {verdict(ratio, goal)} |",
        flush=True,
    )


def verdict(value: float, goal: tuple[str, float]) -> str:
    return "met" if value >= goal[1] else "MISSED"


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


if __name__ == "__main__":
    main()
