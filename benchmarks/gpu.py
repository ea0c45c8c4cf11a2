"""Measure one accelerator in under eight minutes: `python -m benchmarks.gpu [--json FILE]`.

It times a training step of every encoder (float32, tf32, bf16, and compiled), extraction by
ResNet-152, R(2+1)D-18, VGGish and CLIP with decoding on threads beside the networks, and the
metrics of video parsing; it gives peak memory and the share of the device's own measured peak of
matrix products. It checks the published networks' stored outputs on the device, that 200 steps in
bf16 score as float32 does and better than no training, and that a checkpoint of the device goes on
with the same losses on the CPU as there. All weights and features are random or synthetic. The
device is the one that Accelerate chooses; `--small`, or a machine without one, runs everything at
toy size. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avplatform.base.machine import describe, make_accelerator
from avplatform.config.optim import OptimConfig
from avplatform.features.extractor import Extractor
from avplatform.features.recipe import FeatureRecipe
from avplatform.models.errors import one_line
from avplatform.tasks.avvp.metrics import averages, score
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step
from benchmarks import report
from benchmarks.gpu_runs import Runs
from benchmarks.speed.features import make_video, make_weights
from benchmarks.timing import Results, Row
from tests.parity.golden_case import DEFAULT_GOLDEN, Case
from tests.parity.registry import HANDLERS
from tests.plain.steps import Row as Cell
from tests.plain.steps import make_batch, our_model

NO_GOAL = (0.0, 0.0)
CELLS = {
    "han + mmil": Cell("han", "mmil", 16, "weak", NO_GOAL, NO_GOAL),
    "han + leap": Cell("han", "leap", 16, "pseudo", NO_GOAL, NO_GOAL),
    "mmpyr + leap": Cell("mmpyr", "leap", 32, "pseudo", NO_GOAL, NO_GOAL),
    "mgn + group": Cell("mgn", "group", 16, "weak", NO_GOAL, NO_GOAL),
    "dhhn + dch": Cell("dhhn", "dch", 32, "full", NO_GOAL, NO_GOAL),
    "ave + dch": Cell("ave", "dch", 64, "full", NO_GOAL, NO_GOAL),
    "psp + dch": Cell("psp", "dch", 128, "full", NO_GOAL, NO_GOAL),
    "cmbs + dch": Cell("cmbs", "dch", 32, "full", NO_GOAL, NO_GOAL),
    "temporal + dch": Cell("temporal", "dch", 64, "full", NO_GOAL, NO_GOAL),
}
"""Every encoder that has weights, with a decoder and the published batch size."""
GOLDENS = (
    *("han_mmil", "mmpyr_mmil", "mmpyr_leap", "leap_decoder_n2", "jomold_han", "cmpae_model"),
    *("mgn_model", "dhhn_model", "cvcms_net", "ave_att", "ave_dmrn", "psp_full", "cmbs_full"),
    "ovavel_temporal",
)
"""The cases of `tests/parity` that are forward passes of published networks."""
LIMIT = 360.0
"""Seconds after which no check begins any more, so that the program ends within eight minutes."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured."""

    cells: tuple[str, ...] = tuple(CELLS)
    goldens: tuple[str, ...] = GOLDENS
    steps: int = 30
    batches: int = 8
    """times the published batch size that is measured too; 1: not"""
    gemm: int = 8192
    videos: int = 32
    seconds: int = 10
    steps_trained: int = 200
    compile: str = "inductor"


SMALL = Size(
    cells=("han + mmil", "ave + dch"),
    goldens=("han_mmil", "ave_att"),
    steps=2,
    batches=1,
    gemm=256,
    videos=1,
    seconds=1,
    steps_trained=3,
    compile="eager",
)


class Bench:
    """The device, the sizes, and what was found so far."""

    def __init__(self, size: Size, *, light: bool) -> None:
        self.size, self.light = size, light
        # On a CPU that others use too, two threads wait for each other.
        self.device = make_accelerator(precision="no", threads=int(light)).device
        self.on_accelerator = torch.accelerator.is_available()
        self.results = Results(machine=dict(describe()), rounds=size.steps)
        self.failed: list[str] = []
        self.started = time.perf_counter()

    def seconds(self, run: Callable[[], Any], rounds: int | None = None) -> float:
        """Return the seconds of a run by the clock, as the median after two that warm up."""
        times = []
        for _ in range((rounds or self.size.steps) + 2):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times[2:])

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.on_accelerator:
            torch.accelerator.synchronize()

    def add(self, name: str, value: float, unit: str, *, share: float | None = None) -> None:
        """Keep and print a figure."""
        row = Row(benchmark="gpu", name=name, value=value, unit=unit, share=share)
        self.results.rows.append(row)
        peak = "" if share is None else f"{share:.2f}"
        print(f"| {name} | {value:.4g} {unit} | {peak} |", flush=True)

    def check(self, name: str, run: Callable[[], str]) -> None:
        """Run a check, which returns a sentence; an error is kept, and the rest goes on.

        After `LIMIT` seconds it is left out.
        """
        try:
            late = time.perf_counter() - self.started > LIMIT
            said = f"left out: {LIMIT:.0f} seconds are over" if late else run()
        except Exception as error:  # a device may fail in ways of its own
            said = f"FAILED: {one_line(error, 300, named=True)}"
            self.failed.append(name)
            self.results.rows.append(Row(benchmark="gpu", name=name, failure=said))
        self.note(f"{name}: {said}")

    def note(self, text: str) -> None:
        """Keep and print a sentence."""
        self.results.notes.append(text)
        print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--small", action="store_true", help="toy sizes, on a CPU too")
    options = parser.parse_args(arguments)
    alone = not torch.accelerator.is_available()
    small = options.small or alone
    bench = Bench(SMALL if small else Size(), light=small)
    machine = bench.results.machine
    print(f"{machine['accelerators']} on {machine['cpu']}, torch {machine['torch']}")
    if alone:
        bench.note(
            "note: no accelerator is available here: everything runs at toy size on the CPU, which "
            "shows that the program runs; its figures say nothing of a GPU"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        peaks(bench)
        print("\n| figure | value | share of the device's peak |\n|---|---|---|")
        for name in bench.size.goldens:
            bench.check(f"stored outputs of {name}", partial(golden, bench, name))
        runs = Runs(folder=place, steps=bench.size.steps_trained, toy=small)
        bench.check("bf16 scores as float32", runs.scores_alike)
        bench.check("a checkpoint resumes on the CPU", runs.resumes)
        bench.check("extraction", partial(extraction, bench, place))
        bench.check("metrics", partial(metrics, bench))
        for name in bench.size.cells:  # last, as compiling takes most of the time
            bench.check(f"training steps of {name}", partial(training_steps, bench, name))
    bench.results.machine["seconds"] = round(time.perf_counter() - bench.started, 1)
    print(f"\n{bench.results.machine['seconds']} s; failed: {', '.join(bench.failed) or 'nothing'}")
    if options.json:
        report.write(bench.results, options.json)
    return 1 if bench.failed else 0


def precisions(device: torch.device) -> Iterator[tuple[str, AbstractContextManager[Any]]]:
    """Yield the precisions, each with the context of its forward pass; sets that of float32."""
    try:
        for name in ("fp32", "tf32", "bf16"):
            allow_tf32(name == "tf32")
            bf16 = name == "bf16"
            yield name, torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    finally:  # an error of one precision leaves the next check in float32
        allow_tf32(False)


def allow_tf32(allowed: bool) -> None:
    """Set whether products, convolutions and LSTMs in float32 may be rounded to tf32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def peaks(bench: Bench) -> None:
    """Measure matrix products and a copy on the device."""
    side = bench.size.gemm
    for name, _ in precisions(bench.device):
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        square = torch.randn(side, side, device=bench.device).to(dtype)
        bench.results.peaks[name] = 2 * side**3 / bench.seconds(lambda x=square: x @ x, 10) / 1e9
    source = torch.ones(side * side * 4, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / bench.seconds(lambda: target.copy_(source), 10) / 1e9
    bench.results.peaks["copy"] = copied
    found = ", ".join(f"{k} {v:,.0f}" for k, v in bench.results.peaks.items())
    print(f"measured peaks, GF/s of products and GB/s of a copy: {found}")


def training_steps(bench: Bench, name: str) -> str:
    """Time a step of a model in every precision, and compiled in bf16; give its peak memory."""
    device, cell = bench.device, CELLS[name]
    largest, work = 0.0, 0
    for times in sorted({1, bench.size.batches}):
        here = Cell(**{**vars(cell), "batch": cell.batch * times})
        for precision, context in precisions(device):
            for compiled in (False, True) if precision == "bf16" else (False,):
                torch.manual_seed(0)
                task, model, _ = our_model(here)
                batch = make_batch(here, task).to(device)
                model = model.to(device).train()
                optimizer = build_optimizer(model, OptimConfig(lr=1e-5))
                called: Any = (
                    torch.compile(model, backend=bench.size.compile) if compiled else model
                )

                def forward(*inputs: Tensor | None, called: Any = called) -> Any:
                    with context:  # noqa: B023
                        return called(*inputs)

                forward.parameters = model.parameters  # type: ignore[attr-defined]
                step = partial(
                    optimisation_step,
                    forward,  # type: ignore[arg-type]
                    task,
                    batch,
                    optimizer,
                    lr=1e-5,
                    measure_norm=False,
                )
                if not compiled:
                    with FlopCounterMode(display=False) as counter:
                        step()
                    work = counter.get_total_flops()
                memory(bench, reset=True)
                seconds = bench.seconds(step)
                largest = max(largest, memory(bench))
                peak = bench.results.peaks[precision]
                kind = f"{precision}, compiled" if compiled else precision
                bench.add(
                    f"{name}, batch {here.batch}, {kind}: training step",
                    1e3 * seconds,
                    "ms",
                    share=work / seconds / 1e9 / peak,
                )
                bench.add(f"{name}, batch {here.batch}, {kind}", here.batch / seconds, "clips/s")
    return f"peak memory {largest:.2f} GiB" if largest else "peak memory is not known of a CPU"


def memory(bench: Bench, *, reset: bool = False) -> float:
    """Return the largest memory of the device since the last reset, in GiB; 0 on a CPU."""
    if not bench.on_accelerator:
        return 0.0
    found = torch.accelerator.max_memory_allocated() / 2**30
    if reset:
        torch.accelerator.reset_peak_memory_stats()
    return found


def extraction(bench: Bench, folder: Path) -> str:
    """Time videos to features with LLP's networks and with CLIP; four threads decode and feed."""
    size = bench.size
    visual = "timm:resnet18" if bench.light else "timm:resnet152"
    llp = FeatureRecipe(name="llp", audio="vggish", visual=visual, motion="r2plus1d_18")
    clip = FeatureRecipe(name="clip", audio="vggish", visual="clip", frames_per_segment=8)
    video = make_video(folder / "made.mp4", size.seconds)
    dtypes = (torch.float32,) if bench.light else (torch.float32, torch.bfloat16)
    for recipe in (llp, clip):
        place = folder / recipe.name
        place.mkdir()
        weights = weights_of(place, recipe, bench.light)
        for dtype in dtypes:
            threads = 1 if bench.light else 4
            made = [
                Extractor(recipe, weights, bench.device, dtype, batch=64) for _ in range(threads)
            ]
            share = size.videos // threads
            memory(bench, reset=True)

            def run(made: list[Extractor] = made, share: int = share) -> None:
                with ThreadPoolExecutor(len(made)) as pool:
                    for _ in pool.map(lambda one: one.clips([video] * share), made):
                        pass

            seconds = bench.seconds(run, 1)
            frames = 8 * size.seconds * share * threads
            kind = f"{recipe.name} networks, {str(dtype).removeprefix('torch.')}"
            bench.add(f"extraction, {kind}", frames / seconds, "frames/s")
            if used := memory(bench):
                bench.add(f"extraction, {kind}: peak memory", used, "GiB")
    return f"{size.videos} videos of {size.seconds} s, decoding included"


def weights_of(folder: Path, recipe: FeatureRecipe, light: bool) -> dict[str, Any]:
    """Write random weights of the networks of a recipe, CLIP's (ViT-L/14) as a model folder."""
    if recipe.visual != "clip":
        return make_weights(folder, recipe)
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    layers = {"num_hidden_layers": 1} if light else {}
    seen = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    seen |= {"num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768}
    config = CLIPConfig(vision_config={**seen, **layers}, text_config=layers, projection_dim=768)
    CLIPModel(config).save_pretrained(folder / "clip")
    CLIPImageProcessor().save_pretrained(folder / "clip")
    small = FeatureRecipe(name="sound", audio="vggish", visual="timm:resnet18")
    return {"vggish": make_weights(folder, small)["vggish"], "clip": folder / "clip"}


def metrics(bench: Bench) -> str:
    """Time the ten metrics of 1,200 clips from decisions on the device."""
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.random((1200, 10, 25)) < 0.1).to(bench.device) for _ in range(4)]
    run = lambda: averages(score(*(values.cpu().numpy() for values in maps)))  # noqa: E731
    bench.add("ten AVVP metrics, 1,200 clips, from the device", 1e3 * bench.seconds(run), "ms")
    return "computed on the CPU from decisions on the device"


class DeviceCase(Case):
    """A stored case whose weights and inputs lie on a device."""

    device: torch.device

    def input(self, name: str) -> Tensor:
        return super().input(name).to(self.device)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in super().weights().items()}

    def compare(self, produced: dict[str, Any], *, given: tuple[str, ...] = ()) -> None:
        found = {
            name: value.detach().cpu() if isinstance(value, Tensor) else value
            for name, value in produced.items()
        }
        super().compare(found, given=given)


def golden(bench: Bench, name: str) -> str:
    """Check the stored outputs of a published network on the device."""
    case = DeviceCase(name, DEFAULT_GOLDEN)
    case.device = bench.device
    with torch.device(bench.device):
        HANDLERS[name](case)
    return "within the tolerance of tests/parity"


if __name__ == "__main__":
    sys.exit(main())
