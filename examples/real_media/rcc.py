"""Qt's resource archives (.rcc): read into a dictionary of names and contents.

Source: the format of Qt's resource compiler, versions 1 to 3: big-endian, with a tree of entries,
names in UTF-16, and contents that are plain or compressed by zlib (after four bytes that give their
length).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from avplatform.models.errors import DataError

MAGIC = b"qres"
HEADER = struct.Struct(">4sIIII")  # magic, version, and where tree, contents and names begin
ENTRY_BYTES = {1: 14, 2: 22, 3: 22}
COMPRESSED, FOLDER, ZSTD = 1, 2, 4
LARGEST = 2**28  # bytes of an archive or of one of its files
DEEPEST = 32


def read_rcc(file: Path) -> dict[str, bytes]:
    """Return the files of an archive by their path in it, such as /app/resource/dog.ogg.

    Raises:
        DataError: the file is not an archive, is damaged, or holds contents that are compressed by
            something other than zlib.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise DataError(
                f"{file} is larger than {LARGEST} bytes, which no archive of this kind is"
            )
        return _Archive(file.read_bytes()).files()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file} is no Qt resource archive, or damaged ({error})") from None


class _Archive:
    def __init__(self, content: bytes) -> None:
        self.content = content
        magic, self.version, self.tree, self.data, self.names = HEADER.unpack_from(content)
        if magic != MAGIC or self.version not in ENTRY_BYTES:
            raise struct.error("another magic number or version")
        self.seen: set[int] = set()

    def files(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        self._walk(0, "", found, 0)
        return found

    def _walk(self, index: int, above: str, found: dict[str, bytes], depth: int) -> None:
        if index in self.seen or depth > DEEPEST:  # a folder that holds itself
            raise struct.error("its tree is no tree")
        self.seen.add(index)
        place = self.tree + index * ENTRY_BYTES[self.version]
        name, flags = struct.unpack_from(">IH", self.content, place)
        path = above if index == 0 else f"{above}/{self._name(name)}"  # the root has no name
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", self.content, place + 6)
            for child in range(first, first + count):
                self._walk(child, path, found, depth + 1)
        else:
            found[path] = self._file(struct.unpack_from(">I", self.content, place + 10)[0], flags)

    def _name(self, offset: int) -> str:
        place = self.names + offset
        (length,) = struct.unpack_from(">H", self.content, place)  # then a hash of 4 bytes
        return self.content[place + 6 : place + 6 + 2 * length].decode("utf-16-be")

    def _file(self, offset: int, flags: int) -> bytes:
        place = self.data + offset
        (length,) = struct.unpack_from(">I", self.content, place)
        content = self.content[place + 4 : place + 4 + length]
        if len(content) < length:
            raise struct.error("a file is cut off")
        if flags & ZSTD:
            raise struct.error("a file is compressed by zstd, which this reader does not know")
        if not flags & COMPRESSED:
            return content
        (plain,) = struct.unpack_from(">I", content)
        if plain > LARGEST:
            raise struct.error("a file is too large")
        return zlib.decompressobj().decompress(content[4:], plain)
