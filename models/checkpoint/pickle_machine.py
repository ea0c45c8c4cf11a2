"""Reads pickles as data: a small machine that follows the opcodes and never imports or calls what a file names."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import torch

from avplatform.models.checkpoint.pickle_values import (
    CALLS,
    DTYPES,
    Global,
    Instance,
    Opaque,
    StorageRef,
    TensorRef,
    call,
    fill,
    find_global,
    is_count,
    kind_of,
    short,
)
from avplatform.models.errors import DataError, counted

MOST_OPCODES = 500_000
MOST_MEMO = 2**32


class PickleMachine:
    """Follows the opcodes of one or more pickles of a file.

    `storages` is filled on the way: key -> (dtype, number of values).
    """

    def __init__(self) -> None:
        self.storages: dict[str, tuple[torch.dtype, int]] = {}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def load(self, stream: Any) -> Any:
        """Return the object of the next pickle of a binary stream, which is left after its end.

        Raises:
            DataError: not a whole pickle, or it holds what is not allowed; the name is in the message.
        """
        self.stack, self.marks, self.memo = [], [], {}
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
                if count > MOST_OPCODES:
                    raise DataError(
                        f"it describes more than {MOST_OPCODES:,} values; no checkpoint of these models does"
                    )
                if opcode.name == "STOP":
                    return self.pop()
                self._do(opcode.name, arg)
        except DataError:
            raise
        except (ValueError, OverflowError, MemoryError) as error:
            raise broken(short(error)) from None
        raise broken("it has no end")

    def pop(self) -> Any:
        """Take the topmost value."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise broken("a value is missing")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Take the values above the last mark."""
        if not self.marks:
            raise broken("a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _do(self, name: str, arg: Any) -> None:
        if name in _ARGUMENTS:
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ACTIONS:
            _ACTIONS[name](self, arg)
        elif name not in ("PROTO", "FRAME"):
            raise DataError(f"it uses the pickle opcode {name}, which no checkpoint needs; refused")

    def _put(self, arg: int | None) -> None:
        index = len(self.memo) if arg is None else arg
        if not 0 <= index < MOST_MEMO:
            raise broken(f"memo entry {short(index)}")
        value = self.pop()
        self.stack.append(value)
        self.memo[index] = value

    def _get(self, arg: int) -> None:
        if not 0 <= arg < MOST_MEMO or arg not in self.memo:
            raise broken("a value that was never stored")
        self.stack.append(self.memo[arg])

    def _tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def _extend(self, values: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise broken("values for something that is no list")
        target.extend(values)
        self.stack.append(target)

    def _set_items(self, values: list[Any]) -> None:
        target = self.pop()
        if type(target) is not dict or len(values) % 2:
            raise broken("entries for something that is no dictionary")
        fill(target, zip(values[::2], values[1::2], strict=True))
        self.stack.append(target)

    def _dict(self, values: list[Any]) -> None:
        self.stack.append({})
        self._set_items(values)

    def _append_one(self) -> None:
        value = self.pop()
        self._extend([value])

    def _set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def _pop_any(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def _global(self, module: Any, name: Any) -> None:
        self.stack.append(find_global(module, name))

    def _stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self._global(module, name)

    def _call(self, what: Any, args: Any) -> Any:
        for value in args if type(args) is tuple else ():
            self._count_copies(value)
        return call(what, args)

    def _count_copies(self, value: Any) -> None:
        """Count what a call or a state copies: a file could name one long list again and again."""
        self.copied += len(value) if type(value) in (list, tuple, dict) else 0
        if self.copied > MOST_OPCODES:
            raise DataError("it copies the same values again and again; no checkpoint does")

    def _reduce(self) -> None:
        args, what = self.pop(), self.pop()
        self.stack.append(self._call(what, args))

    def _new(self, args: Any, what: Any) -> None:
        """Make an object through its class's __new__: for unknown classes an empty `Instance`."""
        if not isinstance(what, Global):
            raise DataError(f"it makes an object of {kind_of(what)}, which is no class; refused")
        self.stack.append(self._call(what, args) if what.name in CALLS else Instance(what))

    def _new_with_keywords(self) -> None:
        _, args, what = self.pop(), self.pop(), self.pop()
        self._new(args, what)

    def _new_object(self) -> None:
        args, what = self.pop(), self.pop()
        self._new(args, what)

    def _object(self) -> None:
        values = self.pop_mark()
        self.stack.append(self._call(values[0] if values else None, tuple(values[1:])))

    def _instance(self, arg: str) -> None:
        values = tuple(self.pop_mark())
        self.stack.append(self._call(find_global(*_split(arg)), values))

    def _build(self) -> None:
        """Give an object its state; the state of tensors and of ordered dictionaries holds no weights."""
        state, target = self.pop(), self.pop()
        if isinstance(target, Instance):
            for part in state if type(state) is tuple else (state,):
                if type(part) is dict:
                    self._count_copies(part)
                    target.state.update(part)
        elif not isinstance(target, (TensorRef, Opaque)) and type(target) is not dict:
            raise DataError(f"it sets the state of {kind_of(target)}; refused")
        self.stack.append(target)

    def _persistent(self) -> None:
        """Torch's own entries: a storage, or (before 1.6) a module class with its source."""
        entry = self.pop()
        if type(entry) is not tuple or not entry or type(entry[0]) is not str:
            raise DataError("it has a persistent entry that torch does not write; refused")
        if entry[0] == "module" and len(entry) == 4 and isinstance(entry[1], Global):
            self.stack.append(entry[1])
        elif entry[0] == "storage" and len(entry) in (5, 6):
            self.stack.append(self._storage(*entry[1:]))
        else:
            raise DataError(
                f"it has a persistent entry '{short(entry[0])}' that torch does not write; refused"
            )

    def _storage(
        self, kind: Any, key: Any, location: Any, numel: Any, view: Any = None
    ) -> StorageRef:
        name = (
            kind.name.removeprefix("torch.").removeprefix("cuda.")
            if isinstance(kind, Global)
            else ""
        )
        if name not in DTYPES or kind.name.removesuffix(name) not in ("torch.", "torch.cuda."):
            raise DataError(
                f"it has a storage of {kind_of(kind)}, which is not read; known: {', '.join(DTYPES)}"
            )
        if type(key) not in (str, int) or not is_count(numel):
            raise DataError("it has a storage without a name or a size")
        key, dtype = str(key), DTYPES[name]
        if self.storages.setdefault(key, (dtype, numel)) != (dtype, numel):
            raise DataError(f"it describes storage {key} twice, and differently")
        if view is None:
            return StorageRef(key, dtype, 0, numel)
        if (
            type(view) is not tuple
            or len(view) != 3
            or not is_count(view[1])
            or not is_count(view[2])
        ):
            raise DataError(f"the part of storage {key} is not described as torch does")
        if view[1] + view[2] > numel:
            raise DataError(f"a part of storage {key} reaches beyond its {counted(numel, 'value')}")
        return StorageRef(key, dtype, view[1], view[2])


# Opcodes whose argument is the value, and those that are one.
_ARGUMENTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ACTIONS: dict[str, Callable[[PickleMachine, Any], Any]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m._pop_any(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.extend([m.pop()] * 2),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append([]),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "DICT": lambda m, _: m._dict(m.pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_mark()),
    "APPEND": lambda m, _: m._append_one(),
    "APPENDS": lambda m, _: m._extend(m.pop_mark()),
    "ADDITEMS": lambda m, _: m._extend(m.pop_mark()),
    "SETITEM": lambda m, _: m._set_one(),
    "SETITEMS": lambda m, _: m._set_items(m.pop_mark()),
    "GLOBAL": lambda m, arg: m._global(*_split(arg)),
    "STACK_GLOBAL": lambda m, _: m._stack_global(),
    "REDUCE": lambda m, _: m._reduce(),
    "NEWOBJ": lambda m, _: m._new_object(),
    "NEWOBJ_EX": lambda m, _: m._new_with_keywords(),
    "OBJ": lambda m, _: m._object(),
    "INST": lambda m, arg: m._instance(arg),
    "BUILD": lambda m, _: m._build(),
    "BINPERSID": lambda m, _: m._persistent(),
    **{name: lambda m, arg: m._put(arg) for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")},
    **{name: lambda m, arg: m._get(arg) for name in ("GET", "BINGET", "LONG_BINGET")},
}


def _split(arg: str) -> tuple[str, str]:
    module, _, name = arg.partition(" ")
    return module, name


def broken(what: str) -> DataError:
    """Return the error for a stream that no pickler wrote."""
    return DataError(
        f"it is no whole checkpoint, in neither of torch's formats nor as .safetensors ({what})"
    )
