"""The network of a model as torch.export's graph: features in, what decisions read out.

The number of clips, of segments (but for models that take clips of one length) and, where label
embeddings are an input, of labels stay free.
"""

from __future__ import annotations

import copy
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from avplatform.models.av_model import AVModel
from avplatform.models.contracts import DECIDING_AUX, Parse
from avplatform.models.errors import DataError, UsageError, one_line

_SILENT = threading.Lock()
TRACED = {"batch": 3, "segments": 7, "labels": 5}
"""The sizes of the inputs that are traced; all differ, so that none is taken for another."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A traced network: the program, what it reads and returns, and what its outputs mean.

    `inputs` and `outputs` give the axes of each tensor, a number or the name of a free size.
    `parse` is what the model returned while it was traced: it tells how the outputs are to be read.
    """

    program: torch.export.ExportedProgram
    inputs: dict[str, list[str | int]]
    outputs: dict[str, list[str | int]]
    parse: Parse


class Network(nn.Module):
    """A model as a function of tensors alone: those that decisions read, by name.

    Within it, some operations are traced in another form, see `FORMS`.
    """

    def __init__(self, model: AVModel) -> None:
        super().__init__()
        self.model = model
        self.parse = Parse()

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        motion: Tensor | None = None,
        label_embeddings: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the values of all predictions, and what else decisions and timelines read."""
        with _Forms():
            output = self.model(audio, visual, motion, label_embeddings=label_embeddings)
        self.parse = output.parse.for_decisions
        return values_of(self.parse)


def values_of(parse: Parse) -> dict[str, Tensor]:
    """Return the tensors that an exported network returns, by name."""
    found = {name: prediction.values for name, prediction in parse.predictions.items()}
    found |= {name: parse.aux[name] for name in DECIDING_AUX if name in parse.aux}
    return found if parse.attention is None else found | {"attention": parse.attention}


def trace(model: AVModel) -> Traced:
    """Trace the network of a model, in single precision and evaluation mode.

    Raises:
        UsageError: the network has an operation whose shapes depend on values, or another that
            torch.export does not know; says what torch found.
    """
    network = Network(copy.deepcopy(model).float().cpu().eval())
    network.model.companion = None
    free: tuple[str, ...] = ("batch", "segments", "labels")
    try:
        with torch.no_grad():
            network(**example(model, **TRACED))
    except DataError:  # the model takes clips of one length alone
        free = ("batch", "labels")
    sizes = {name: size for name, size in TRACED.items() if name in free}
    inputs, axes = example(model, **sizes), axes_of(model, free=free)
    shapes = {
        name: {at: torch.export.Dim.DYNAMIC for at, size in enumerate(axes[name]) if size in free}
        for name in inputs
    }
    try:
        with torch.no_grad(), silent():
            network(**inputs)
            found = network.parse  # torch.export keeps no attribute that is set while it traces
            program = torch.export.export(network, (), inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises errors of many kinds
        reason = one_line(error, 300, named=True)
        raise UsageError(f"the model cannot be exported: {reason}") from error
    symbols = {
        str(size): axis
        for name, value in zip(inputs, _values(program, "user_inputs"), strict=True)
        for size, axis in zip(value.shape, axes[name], strict=True)
    }
    outputs: dict[str, list[str | int]] = {
        name: [symbols.get(str(n), str(n)) if isinstance(n, torch.SymInt) else n for n in x.shape]
        for name, x in zip(values_of(found), _values(program, "user_outputs"), strict=True)
    }
    return Traced(program=program, inputs=axes, outputs=outputs, parse=found)


@contextmanager
def silent() -> Iterator[None]:
    """Keep back what torch warns, logs and prints, such as the graph of what it cannot trace.

    That holds for the whole process, so threads wait for each other here.
    """
    with _SILENT:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(before)


def axes_of(model: AVModel, *, free: tuple[str, ...]) -> dict[str, list[str | int]]:
    """Return the axes of each input: a number, or the name of a free size."""
    spec, config = model.config.features, model.config
    segments = "segments" if "segments" in free else config.segments
    found: dict[str, list[str | int]] = {
        "audio": ["batch", segments, spec.audio_dim],
        "visual": ["batch", segments, *(spec.map_size or ()), spec.visual_dim],
    }
    if spec.motion_dim is not None:
        found["motion"] = ["batch", segments, spec.motion_dim]
    if model.label_embeddings is not None and not config.learned_labels:
        found["label_embeddings"] = ["labels", config.label_dim]
    return found


def example(
    model: AVModel, *, seed: int = 0, labels: int | None = None, **sizes: int
) -> dict[str, Tensor]:
    """Return random inputs of a model.

    Args:
        model: the model.
        seed: of the random numbers.
        labels: number of label texts; None: the embeddings of the model's own.
        sizes: of "batch" and "segments"; default: one clip as long as those of the training.
    """
    generator = torch.Generator().manual_seed(seed)
    free = ("batch", "segments", "labels")
    given = {"batch": 1, "segments": model.config.segments, "labels": labels or 1} | sizes
    found = {
        name: torch.randn(
            [given[size] if isinstance(size, str) else size for size in axes], generator=generator
        )
        for name, axes in axes_of(model, free=free).items()
    }
    if "label_embeddings" in found:
        own = model.label_embeddings.detach().float().cpu()  # type: ignore[union-attr]
        found["label_embeddings"] = (
            own if labels is None else found["label_embeddings"] * own.std() + own.mean(dim=0)
        )
    return found


class _Forms(TorchFunctionMode):
    """Within it, the functions that `FORMS` names are replaced."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return FORMS.get(func, func)(*args, **(kwargs or {}))


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    each = x.shape[dim] // chunks
    return tuple(x.narrow(dim, number * each, each) for number in range(chunks))


def _split(x: Tensor, sizes: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(x.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True))


def _lstm(*args: Any) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = lstm_operator()(*args)
    return found


FORMS: dict[Any, Callable[..., Any]] = {
    Tensor.chunk: _chunk,
    Tensor.split: _split,
    torch.lstm: _lstm,
}
"""Functions of torch, and how they are traced instead.

Parts become slices, because ONNX has no split into a free size that runtimes run without a copy.
An LSTM becomes one operator: torch.export would unroll it to the traced number of segments.
"""


@cache
def lstm_operator() -> Any:
    """Return an operator that computes as torch's LSTM does, and is traced as a whole."""
    schema = torch.ops.aten.lstm.input._schema
    text = str(schema).split("(", 1)[1].replace("SymInt", "int")
    made = torch.library.custom_op(
        "avplatform::lstm", torch.ops.aten.lstm.input, mutates_args=(), schema=f"({text}"
    )

    def shapes(input: Tensor, hx: list[Tensor], *others: Any) -> tuple[Tensor, Tensor, Tensor]:
        directions, clips, width = hx[0].shape
        found = input.new_empty(clips, input.shape[1], directions * width)
        return found, torch.empty_like(hx[0]), torch.empty_like(hx[1])

    made.register_fake(shapes)
    return torch.ops.avplatform.lstm.default


def for_any_torch(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Change a program so that any torch reads its file, and the file any sizes.

    Torch's LSTM is put where `lstm_operator` stands. While torch traces, it notes comparisons of
    sizes by which it chose strides: that DHHN's convolution over time leaves more than 1 step, say.
    A file would refuse shorter clips for them, so they are dropped; the check of the file compares
    its results where they do not hold, at clips of one segment.
    """
    from torch.utils._sympy.value_ranges import ValueRanges  # with sympy, which takes long

    # Torch has no public name for these notes; one without them writes files that refuse more.
    noted = getattr(program, "_guards_code", None) or []
    kept = [code for code in noted if " != " not in code and not code.startswith("1 < ")]
    if kept != noted:
        program._guards_code = kept
    ranges = program.range_constraints
    for size, found in ranges.items():
        ranges[size] = ValueRanges(min(found.lower, 1), found.upper)
    for node in program.graph.nodes:
        if node.target is lstm_operator():
            node.target = torch.ops.aten.lstm.input
        node.meta.pop("stack_trace", None)  # paths of this machine
    program.graph_module.recompile()
    return program


def _values(program: torch.export.ExportedProgram, kind: str) -> list[Tensor]:
    """Return the tensors that stand for the inputs or outputs in a program, in their order."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name].meta["val"] for name in getattr(program.graph_signature, kind)]
