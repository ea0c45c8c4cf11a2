"""A pickle reader that follows the opcodes of a file, and never imports or calls what it names.

Python's own :class:`pickle._Unpickler` follows the opcodes. Everything by which a pickle could
reach code is replaced here: names are looked up in our own table of calls, objects become
descriptions, and operations that a file could make slow or large are counted.

``torch.load(weights_only=True)`` cannot replace it. Measured with torch 2.14.1 on the files of
``tests/convert``, with and without ``add_safe_globals``:

* It reads state dicts, but no whole module, no part of a storage, and no pickle of protocol 4.
* A deeply nested tuple as a key ends the process with a segmentation fault; one that holds itself
  twice on each of 40 levels is not read within 20 seconds; a tensor of 2^60 values with stride 0
  is accepted as one of 4 values.
* It refuses all 33 pickles that were written by hand, and names the reason in five of them.

Without the count of copies, hostile files of 0.6 to 0.8 MiB are not read within 25 seconds; with
it they are refused within 1.1 s.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import torch

from avplatform.models.checkpoint.pickle_values import (
    CALLS,
    DTYPES,
    Global,
    Instance,
    StorageRef,
    TensorRef,
    fill,
    find_global,
    is_count,
    kind_of,
    set_numpy_state,
    short,
)
from avplatform.models.errors import DataError, counted

MOST_OPCODES = 500_000
MOST_MEMO = 2**32
MOST_COPIES = 4
"""How often the bytes of a pickle may be copied, on average."""

REFUSED = ("PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")
"""Opcodes that no file needs; the EXT opcodes would import by number."""


class _Memo(dict[int, Any]):
    def __setitem__(self, index: int, value: Any) -> None:
        if not 0 <= index < MOST_MEMO:
            raise broken(f"memo entry {short(index)}")
        super().__setitem__(index, value)

    def __missing__(self, index: int) -> Any:
        raise broken("a value that was never stored")


class _Opcodes(pickle._Unpickler):
    """Safe versions of the opcodes that would run classes and functions, or hash any value."""

    def __init__(self, stream: Any, calls: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream, self.calls = stream, calls
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.bytes_read = self.copied = 0

    def read(self, size: int) -> bytes:
        """Return exactly this many bytes of the stream."""
        found = self.stream.read(size)
        if len(found) != size:
            raise broken("it has no end")
        self.bytes_read += size
        return found

    def readline(self) -> bytes:
        """Return a line of the stream with its line end."""
        found = self.stream.readline()
        self.bytes_read += len(found)
        return found

    def pop_mark(self) -> list[Any]:
        """Take the values above the last mark off the stack."""
        if not self.metastack:
            raise broken("a mark is missing")
        found, self.stack = self.stack, self.metastack.pop()
        self.append = self.stack.append
        return found

    def find_class(self, module: Any, name: Any) -> Global:
        """Return a stand-in for a global that the file names; nothing is imported."""
        return find_global(module, name, self.calls)

    def _call(self, what: Any, args: Any) -> None:
        """Do one of the known calls and put its value on the stack."""
        if not isinstance(what, Global):
            raise DataError(f"it calls {kind_of(what)}, which is not a function; refused")
        if what.name not in self.calls:
            why = "which no checkpoint needs; refused (nothing of the file was run)"
            raise DataError(f"it calls {short(what.name)}, {why}")
        if type(args) is not tuple:
            raise DataError(f"it calls {what.name} without arguments in a tuple; refused")
        self._count_copies(args, *args)
        try:
            self.append(self.calls[what.name](*args))
        except TypeError:
            values = counted(len(args), "value")
            raise DataError(
                f"it calls {what.name} with {values}, which it does not take; refused"
            ) from None

    def _count_copies(self, *values: Any) -> None:
        """Count the values that a call or state copies, since a file can copy one list often."""
        for value in values:
            if type(value) in (list, tuple, dict, str, bytes, bytearray):
                self.copied += len(value)
        if self.copied > MOST_COPIES * self.bytes_read + 2**16:
            raise DataError("it copies the same values again and again; no checkpoint does")

    def _fill(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(values) % 2:
            raise broken("entries for something that is not a dictionary")
        fill(self.stack[-1], zip(values[::2], values[1::2], strict=True))

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise broken("values for something that is not a list")
        self.stack[-1].extend(values)

    def load_frame(self) -> None:
        self.read(8)

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(*struct.unpack("<Q", self.read(8)))))

    def load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.append(self.find_class(module, name))

    def load_reduce(self) -> None:
        args, what = self.stack.pop(), self.stack.pop()
        self._call(what, args)

    def load_newobj(self) -> None:
        """Make an object as `__new__` of its class does; of an unknown class, a description."""
        args, what = self.stack.pop(), self.stack.pop()
        if not isinstance(what, Global):
            raise DataError(f"it makes an object of {kind_of(what)}, which is not a class; refused")
        if what.name in self.calls:
            self._call(what, args)
        else:
            self.append(Instance(what))

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keywords
        self.load_newobj()

    def _instantiate(self, what: Any, args: list[Any]) -> None:
        self._call(what, tuple(args))

    def load_build(self) -> None:
        """Give an object its state; the state of tensors and dictionaries holds no weights."""
        state, target = self.stack.pop(), self.stack[-1]
        parts = state if type(state) is tuple else (state,)
        self._count_copies(parts, *parts)
        if isinstance(target, Instance):
            for part in parts:
                if type(part) is dict:
                    target.state.update(part)
        elif not set_numpy_state(target, state) and not isinstance(target, (TensorRef, dict)):
            raise DataError(f"it sets the state of {kind_of(target)}; refused")

    def load_dict(self) -> None:
        values = self.pop_mark()
        self.append({})
        self._fill(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def load_setitems(self) -> None:
        self._fill(self.pop_mark())

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    # Sets are read as lists: a set would hash any value that a file puts into it.

    def load_empty_set(self) -> None:
        self.append([])

    def load_frozenset(self) -> None:
        values = self.pop_mark()
        self.append(values)

    def load_additems(self) -> None:
        self._extend(self.pop_mark())


class PickleMachine(_Opcodes):
    """Follow the opcodes of the pickles of one file.

    Args:
        stream: a binary stream; its ``read`` must not allocate more than there is to read.
        calls: the functions that may be called, by full name, and our versions of them.

    Attributes:
        storages: the torch storages described so far: key -> (dtype, number of values).
    """

    def __init__(self, stream: Any, calls: Mapping[str, Callable[..., Any]] = CALLS) -> None:
        super().__init__(stream, calls)
        self.storages: dict[str, tuple[torch.dtype, int]] = {}
        self.opcodes = 0

    def load(self) -> Any:
        """Return the object of the next pickle; the stream is then at the end of that pickle.

        Raises:
            DataError: the pickle is not complete, or holds what is not allowed, which is named.
        """
        self.memo, self.metastack, self.stack = _Memo(), [], []
        self.append = self.stack.append
        try:
            while (code := self.read(1)[0]) != pickle.STOP[0]:
                self.opcodes += 1
                if self.opcodes > MOST_OPCODES:
                    what = f"it describes more than {MOST_OPCODES:,} values"
                    raise DataError(f"{what}; no checkpoint of these models does")
                if code not in _ACTIONS:
                    raise _no_opcode(code)
                _ACTIONS[code](self)
            return self.stack.pop()
        except DataError:
            raise
        except IndexError:
            raise broken("a value is missing") from None
        except (
            *(ValueError, TypeError, AttributeError, KeyError, OverflowError, MemoryError),
            *(struct.error, pickle.UnpicklingError),
        ) as error:
            raise broken(short(error)) from None

    def persistent_load(self, entry: Any) -> Any:
        """Return what an entry of torch describes: a storage, or (before 1.6) a module class."""
        if type(entry) is not tuple or not entry or type(entry[0]) is not str:
            raise DataError("it has a persistent entry that torch does not write; refused")
        if entry[0] == "module" and len(entry) == 4 and isinstance(entry[1], Global):
            return entry[1]
        if entry[0] == "storage" and len(entry) in (5, 6):
            return self._storage(*entry[1:])
        what = f"it has a persistent entry '{short(entry[0])}'"
        raise DataError(f"{what} that torch does not write; refused")

    def _storage(
        self, kind: Any, key: Any, location: Any, numel: Any, view: Any = None
    ) -> StorageRef:
        name = kind.name.removeprefix("torch.") if isinstance(kind, Global) else ""
        name = name.removeprefix("cuda.")
        if name not in DTYPES or kind.name not in (f"torch.{name}", f"torch.cuda.{name}"):
            known = ", ".join(DTYPES)
            raise DataError(
                f"it has a storage of {kind_of(kind)}, which is not read; known: {known}"
            )
        if type(key) not in (str, int) or not is_count(numel):
            raise DataError("it has a storage without a name or a size")
        key, dtype = str(key), DTYPES[name]
        if self.storages.setdefault(key, (dtype, numel)) != (dtype, numel):
            raise DataError(f"it describes storage {key} twice, and differently")
        if view is None:
            return StorageRef(key, dtype, 0, numel)
        if type(view) is not tuple or len(view) != 3 or not all(map(is_count, view[1:])):
            raise DataError(f"the part of storage {key} is not described as torch does it")
        if view[1] + view[2] > numel:
            what = f"a part of storage {key} reaches beyond its {counted(numel, 'value')}"
            raise DataError(what)
        return StorageRef(key, dtype, view[1], view[2])


_ACTIONS: dict[int, Callable[[PickleMachine], None]] = {
    ord(opcode.code): getattr(PickleMachine, pickle._Unpickler.dispatch[ord(opcode.code)].__name__)
    for opcode in pickletools.opcodes
    if opcode.proto <= 5 and opcode.name not in REFUSED  # a later Python may have more opcodes
}
"""The method of each opcode: ours if there is one, else that of Python's unpickler."""


def _no_opcode(code: int) -> DataError:
    names = [opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code]
    if not names:
        return broken(f"the byte {code} is not an opcode")
    return DataError(f"it uses the pickle opcode {names[0]}, which no file needs; refused")


def broken(what: str) -> DataError:
    """Return the error for a stream that no pickler wrote."""
    return DataError(
        f"it is not a whole checkpoint, in either of torch's formats or as .safetensors ({what})"
    )
