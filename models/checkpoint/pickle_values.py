"""The values that a pickle is read into: names of classes, states of objects, tensor descriptions.

A class or function of the file becomes a :class:`Global`, which is only its name; an object of such
a class becomes an :class:`Instance`, which only holds its state. Our own functions, found by exact
name, do the calls that files need (rebuilding a tensor, an OrderedDict). Every other call, and
every other global of Python's standard library, is refused by name.
"""

from __future__ import annotations

import math
import re
import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from avplatform.models.errors import DataError

MOST_DIMS = 8
MOST_VALUES = 2**48

DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NUMPY_KIND = re.compile(r"[biufcSU][0-9]{1,4}")


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A class or function that a pickle names, or a value that is not needed; never imported."""

    name: str


@dataclass(eq=False, slots=True)
class Instance:
    """An object of an unknown class: the name of the class, and the state."""

    kind: Global
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class StorageRef:
    """A storage of the file, or a part of one: `numel` values from `offset` on."""

    key: str
    dtype: torch.dtype
    offset: int
    numel: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorRef:
    """A tensor that the file describes; its values are read later, and only if needed."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """The number of values."""
        return math.prod(self.size)


def find_global(module: Any, name: Any, known: Container[str]) -> Global:
    """Return a stand-in for a global; those of the standard library must be in `known`.

    Raises:
        DataError: the global is refused; names it.
    """
    # Python 2 had other names for some modules.
    module = IMPORT_MAPPING.get(module, module) if type(module) is str else module
    full = f"{module}.{name}" if type(module) is str and type(name) is str else ""
    if not full or not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
        raise DataError(f"it names a global '{short(full)}', which is not a plain name; refused")
    of_python = module.split(".")[0] in sys.stdlib_module_names
    if (of_python and full not in known) or "__" in name:
        why = "which no checkpoint needs; refused (nothing of the file was run)"
        raise DataError(f"it names {short(full)}, {why}")
    return Global(full)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    lists = type(pairs) in (list, tuple)
    if not lists or not all(type(p) in (list, tuple) and len(p) == 2 for p in pairs):
        raise DataError("it makes an OrderedDict of something that is not a list of pairs; refused")
    return fill({}, pairs)


def _members(values: Any = ()) -> list[Any]:
    if type(values) not in (list, tuple):
        raise DataError("it makes a set or size of something that is not a list; refused")
    return list(values)


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(_members(values))


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRef:
    """Return the description of a tensor.

    Raises:
        DataError: the numbers are impossible, or the tensor reaches beyond its storage.
    """
    if not isinstance(storage, StorageRef) or type(size) is not tuple or type(stride) is not tuple:
        what = "it rebuilds a tensor of something that is not a storage, size and stride"
        raise DataError(f"{what}; refused")
    numel = _count_values((offset, *size, *stride), size)
    if len(size) != len(stride):
        raise DataError("it holds a tensor with an impossible size, stride or offset")
    last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
    if numel > storage.numel or (numel and last >= storage.numel):
        where = f"its storage of {short(storage.numel)} values"
        raise DataError(f"a tensor {short(list(size))} reaches beyond {where}")
    return TensorRef(storage, offset, size, stride)


def _count_values(numbers: tuple[Any, ...], size: tuple[Any, ...]) -> int:
    """Return the number of values of a size, after checking all numbers of the description."""
    fine = all(map(is_count, numbers)) and len(size) <= MOST_DIMS
    # Even for an empty tensor, torch multiplies the other axes.
    if not fine or (0 in size and math.prod(max(s, 1) for s in size) >= MOST_VALUES):
        raise DataError("it holds a tensor with an impossible size, stride or offset")
    return math.prod(size)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise DataError("it makes a parameter of something that is not a tensor; refused")
    return data


def _numpy_kind(name: Any, *_: Any) -> np.dtype:
    if type(name) is not str or not _NUMPY_KIND.fullmatch(name):
        kind = short(name) if type(name) is str else kind_of(name)
        raise DataError(f"it holds NumPy values of kind '{kind}', which are not read")
    return np.dtype(name)


def _numpy_number(kind: Any, data: Any) -> np.generic:
    return numpy_array(data, kind, (1,))[0]


def _latin_1(text: Any, codec: Any) -> bytes:
    if type(text) is not str or codec != "latin1":
        raise DataError("it encodes something other than bytes, which no pickler does; refused")
    return text.encode("latin1")


def numpy_array(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """Return an array from its bytes, as protocol 5 describes it.

    Raises:
        DataError: the description is not one of an array, or the bytes do not fit the shape.
    """
    if not isinstance(kind, np.dtype) or type(shape) is not tuple or order not in ("C", "F"):
        raise DataError(
            "it makes an array of something that is not a kind, shape and order; refused"
        )
    count = _count_values(shape, shape)
    data = data.encode("latin1") if type(data) is str else data  # from Python 2
    if type(data) not in (bytes, bytearray) or len(data) != count * kind.itemsize:
        raise DataError(f"the bytes of an array are not as many as its shape {list(shape)} says")
    return np.ndarray(shape, kind, bytearray(data), order=order)


def set_numpy_state(target: Any, state: Any) -> bool:
    """Give an array or NumPy type its state; return whether the target was one of these.

    Raises:
        DataError: the state is not as NumPy writes it, or from a big-endian machine.
    """
    if isinstance(target, np.dtype):
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise DataError("it holds NumPy values of another byte order, which are not read")
    elif isinstance(target, np.ndarray):
        if type(state) is not tuple or len(state) != 5:
            raise DataError("it holds an array that is not described as NumPy does it")
        _, shape, kind, by_columns, data = state
        values = numpy_array(data, kind, shape, "F" if by_columns is True else "C")
        described: Any = values.__reduce__()
        target.__setstate__(described[2])
    return isinstance(target, (np.dtype, np.ndarray))


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "builtins.set": _members,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    # torch 0.3 and older wrote parameters, and the back end of every module, like this.
    "torch.nn.parameter.Parameter": _parameter,
    "torch.autograd.variable.Variable": _parameter,
    "torch.nn.backends.thnn._get_thnn_function_backend": lambda: None,
    "torch.Size": _size,
    "torch.device": lambda kind, index=None: Global("torch.device"),
    # Numbers beside the weights, such as the best accuracy.
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
    "numpy.dtype": _numpy_kind,
    "_codecs.encode": _latin_1,
}
"""The functions that a checkpoint may call, by full name, and our versions of them."""

ARRAY_CALLS: dict[str, Callable[..., Any]] = {
    # Up to protocol 4, an empty array is made and then given its state.
    "numpy.core.multiarray._reconstruct": lambda cls, shape, kind: np.empty(0),
    "numpy._core.multiarray._reconstruct": lambda cls, shape, kind: np.empty(0),
    "numpy.core.numeric._frombuffer": numpy_array,
    "numpy._core.numeric._frombuffer": numpy_array,
    "builtins.bytes": lambda: b"",  # protocol 2 writes this for the bytes of an empty array
}
"""The functions that make NumPy arrays."""


def fill(target: dict[Any, Any], pairs: Any) -> dict[Any, Any]:
    """Fill and return a dictionary.

    A key whose hash a file could make slow is replaced by its kind; no weight has such a key.
    """
    for key, value in pairs:
        text = key is None or type(key) in (str, bytes, bool)
        plain = text or (type(key) is int and abs(key) < 2**63)
        target[key if plain else Global(kind_of(key))] = value
    return target


def is_count(value: Any) -> bool:
    """Return whether a value is a possible count of the values in a file."""
    return type(value) is int and 0 <= value < MOST_VALUES


def kind_of(value: Any) -> str:
    """Return the name of a global, or the kind of another value, for messages."""
    if isinstance(value, Global):
        return short(value.name)
    if isinstance(value, Instance):
        return f"an object of {short(value.kind.name)}"
    return "a tensor" if isinstance(value, TensorRef) else f"a value of kind {type(value).__name__}"


def short(value: Any) -> str:
    """Return a text of the file, cut to fit into a message."""
    return printable(" ".join(str(value).split())[:120])


def printable(text: str) -> str:
    """Return a text with question marks for characters that cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in text)
