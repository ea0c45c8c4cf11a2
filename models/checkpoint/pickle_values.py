"""What a pickle is read into: names instead of classes, states instead of objects, descriptions instead of tensors.

A class or function of the file is a `Global`, which is only its name; an object of such a class is an `Instance`, which
only holds its state. The calls that checkpoints need (rebuilding a tensor, an OrderedDict) are done by our own functions,
found by exact name; every other call, and every global of Python's standard library, is refused by name.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from avplatform.models.errors import DataError, counted

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

# What Python 2 called modules of the standard library; torch's pickles use these names.
_PYTHON_2 = {
    "__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg", "cPickle": "pickle", "commands": "subprocess",
    "popen2": "subprocess", "urllib2": "urllib", "thread": "_thread", "Queue": "queue", "StringIO": "io", "httplib": "http",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A class or function that a pickle names; it is never imported."""

    name: str


@dataclass(eq=False, slots=True)
class Instance:
    """An object of a class that is not known here: its class's name and its state."""

    kind: Global
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Opaque:
    """A value that no weight is made of, such as a device or a numpy number."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class StorageRef:
    """Values of a storage of the file, or of a part of it: `numel` values from `offset` on."""

    key: str
    dtype: torch.dtype
    offset: int
    numel: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorRef:
    """A tensor that the file describes; its values are read later, and only if it is wanted."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.size)


def find_global(module: Any, name: Any) -> Global:
    """Return a stand-in for a global, unless it is of the standard library and not known to be needed.

    Raises:
        DataError: naming it.
    """
    module = _PYTHON_2.get(module, module) if type(module) is str else module
    full = f"{module}.{name}" if type(module) is str and type(name) is str else ""
    if not full or not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
        raise DataError(f"it names a global '{short(full)}', which is no plain name; refused")
    if (module.split(".")[0] in sys.stdlib_module_names and full not in CALLS) or "__" in name:
        raise DataError(
            f"it names {short(full)}, which no checkpoint needs; refused (nothing of the file was run)"
        )
    return Global(full)


def call(what: Any, args: Any) -> Any:
    """Do one of the known calls.

    Raises:
        DataError: any other call; names it.
    """
    if not isinstance(what, Global):
        raise DataError(f"it calls {kind_of(what)}, which is no function; refused")
    if what.name not in CALLS:
        raise DataError(
            f"it calls {short(what.name)}, which no checkpoint needs; refused (nothing of the file was run)"
        )
    if type(args) is not tuple:
        raise DataError(f"it calls {what.name} without arguments in a tuple; refused")
    return CALLS[what.name](*_checked(what.name, args))


def _checked(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    low, high = _ARITY[name]
    if not low <= len(args) <= high:
        raise DataError(
            f"it calls {name} with {counted(len(args), 'value')}; that is not how torch does it"
        )
    return args


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) not in (list, tuple) or not all(
        type(p) in (list, tuple) and len(p) == 2 for p in pairs
    ):
        raise DataError("it makes an OrderedDict of something that is no list of pairs; refused")
    return fill({}, pairs)


def _members(values: Any = ()) -> list[Any]:
    if type(values) not in (list, tuple):
        raise DataError("it makes a set of something that is no list; refused")
    return list(values)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or type(size) is not tuple or type(stride) is not tuple:
        raise DataError(
            "it rebuilds a tensor of something that is no storage, size and stride; refused"
        )
    if (
        not all(map(is_count, (offset, *size, *stride)))
        or len(size) != len(stride)
        or len(size) > MOST_DIMS
    ):
        raise DataError("it holds a tensor with an impossible size, stride or offset")
    if 0 in size and math.prod(max(s, 1) for s in size) >= MOST_VALUES:  # more than torch can count
        raise DataError("it holds a tensor with an impossible size, stride or offset")
    numel = math.prod(size)
    last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
    if numel > storage.numel or (numel and last >= storage.numel):
        raise DataError(
            f"a tensor {short(list(size))} reaches beyond its storage of {short(storage.numel)} values"
        )
    return TensorRef(storage, offset, size, stride)


def _parameter(data: Any = None, *_: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise DataError("it makes a parameter of something that is no tensor; refused")
    return data


def _size(values: Any = ()) -> tuple[Any, ...]:
    if type(values) not in (list, tuple):
        raise DataError("it makes a torch.Size of something that is no tuple; refused")
    return tuple(values)


def _opaque(name: str) -> Callable[..., Opaque]:
    return lambda *_: Opaque(name)


_MANY = 16
# Each known call, done by our own function, and how many arguments it may have.
_KNOWN: dict[str, tuple[Callable[..., Any], int, int]] = {
    "collections.OrderedDict": (_ordered, 0, 1),
    "builtins.set": (_members, 0, 1),
    "torch._utils._rebuild_tensor": (_tensor, 4, 4),
    "torch._utils._rebuild_tensor_v2": (_tensor, 6, 7),
    "torch._utils._rebuild_parameter": (_parameter, 3, 3),
    # As torch 0.3 and older wrote parameters and the back end of every module.
    "torch.nn.parameter.Parameter": (_parameter, 1, 2),
    "torch.autograd.variable.Variable": (_parameter, 1, 2),
    "torch.nn.backends.thnn._get_thnn_function_backend": (_opaque("back end"), 0, 0),
    "torch.Size": (_size, 0, 1),
    "torch.device": (_opaque("torch.device"), 0, 2),
    # Numbers that stand beside weights ("best accuracy"); they are named as ignored, never read.
    "numpy.core.multiarray.scalar": (_opaque("numpy number"), 0, _MANY),
    "numpy._core.multiarray.scalar": (_opaque("numpy number"), 0, _MANY),
    "numpy.dtype": (_opaque("numpy dtype"), 0, _MANY),
    "_codecs.encode": (_opaque("bytes"), 0, 2),
}
CALLS: dict[str, Callable[..., Any]] = {name: function for name, (function, _, _) in _KNOWN.items()}
_ARITY = {name: (low, high) for name, (_, low, high) in _KNOWN.items()}


def fill(target: dict[Any, Any], pairs: Any) -> dict[Any, Any]:
    """Fill and return a dictionary; keys whose hash a file could make slow are kept as opaque ones, which no weight has."""
    for key, value in pairs:
        plain = (
            key is None
            or type(key) in (str, bytes, bool)
            or (type(key) is int and abs(key) < 2**63)
        )
        target[key if plain else Opaque(kind_of(key))] = value
    return target


def is_count(value: Any) -> bool:
    """Say whether a value is a number of things that a file can hold."""
    return type(value) is int and 0 <= value < MOST_VALUES


def kind_of(value: Any) -> str:
    """Return the name of a global, or what kind of value this is."""
    if isinstance(value, (Global, Opaque)):
        return short(value.name)
    if isinstance(value, Instance):
        return f"an object of {short(value.kind.name)}"
    return "a tensor" if isinstance(value, TensorRef) else f"a value of kind {type(value).__name__}"


def short(value: Any) -> str:
    """Return a text of the file, cut to a length that fits into a message."""
    return printable(" ".join(str(value).split())[:120])


def printable(text: str) -> str:
    """Return a text with question marks for what could steer a terminal or cannot be written."""
    return "".join(c if c.isprintable() else "?" for c in text)
