"""The ONNX form of a traced network, by torch's converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from avplatform.exported.graph import Traced, lstm_operator, silent
from avplatform.models.errors import UsageError, one_line

OPSET = 18
GATES = (0, 3, 1, 2)
"""The order of ONNX's gates (input, output, forget, cell) among torch's."""


def onnx_bytes(traced: Traced, texts: Mapping[str, str]) -> bytes:
    """Return the content of an ONNX file of a traced network.

    Args:
        traced: the network.
        texts: what the file says of itself.

    Raises:
        UsageError: an operation of the network has no form in ONNX.
    """
    try:
        with torch.no_grad(), silent():
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                optimize=False,  # fails at some operations with a free batch; runtimes do it
                verbose=False,
                opset_version=OPSET,
                output_names=list(traced.outputs),
                custom_translation_table={lstm_operator(): _lstm},
            )
    except Exception as error:  # the converter raises errors of many kinds
        reason = one_line(error, 300, named=True)
        raise UsageError(f"the model cannot be written as ONNX: {reason}") from error
    assert program is not None
    proto = program.model_proto
    proto.producer_name, proto.producer_version = "avplatform", texts["avplatform"]
    del proto.metadata_props[:], proto.graph.value_info[:], proto.graph.metadata_props[:]
    for name, text in texts.items():
        proto.metadata_props.add(key=name, value=text)
    for node in proto.graph.node:  # they hold paths of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    _name_axes(proto.graph.input, traced.inputs)
    _name_axes(proto.graph.output, traced.outputs)
    content: bytes = proto.SerializeToString()
    return content


def _name_axes(values: Any, axes: Mapping[str, Sequence[str | int]]) -> None:
    """Name the free axes of the inputs or outputs of a graph."""
    for value in values:
        for dim, axis in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if isinstance(axis, str):
                dim.dim_param = axis


def _lstm(
    x: Any,
    start: Sequence[Any],
    weights: Sequence[Any],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any, Any]:
    """Return ONNX's LSTM for one of torch.

    Shape: x [B, T, D'], start two of [directions, B, D] -> [B, T, directions * D], and the last
    states as `start`.
    """
    from onnxscript import opset18

    op: Any = opset18
    directions = 2 if bidirectional else 1
    if not (has_biases and batch_first and layers == 1) or len(weights) != 4 * directions:
        raise UsageError("an LSTM is exported with one layer, biases, and the batch first")
    width = weights[1].shape[1]
    order = [gate * width + unit for gate in GATES for unit in range(width)]
    rows = op.Constant(value_ints=order)

    def stacked(number: int) -> Any:
        found = [op.Gather(w, rows, axis=0) for w in weights[number::4]]
        return op.Concat(*[op.Unsqueeze(w, [0]) for w in found], axis=0)

    found, hidden, cell = op.LSTM(
        op.Transpose(x, perm=[1, 0, 2]),
        stacked(0),
        stacked(1),
        op.Concat(stacked(2), stacked(3), axis=1),
        None,
        start[0],
        start[1],
        hidden_size=width,
        direction="bidirectional" if bidirectional else "forward",
    )  # (T, directions, B, D)
    joined = op.Transpose(found, perm=[2, 0, 1, 3])
    return op.Reshape(joined, op.Constant(value_ints=[0, 0, -1])), hidden, cell
