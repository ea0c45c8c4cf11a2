import struct
import zlib

import pytest

from avplatform.models.errors import DataError
from examples.real_media.rcc import read_rcc

FOLDER, COMPRESSED, ZSTD = 2, 1, 4


def archive(version=3, *, flags=0, sound=b"bark" * 9):
    """A root with a folder `dogs` of two files and a file beside it, in Qt's format."""
    names, offsets = b"", {}
    for name in ("dogs", "loud.ogg", "small.txt", "top.webp"):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data, places = b"", {}
    for name, content in (("loud.ogg", sound), ("small.txt", b""), ("top.webp", b"picture")):
        if name == "loud.ogg" and flags & COMPRESSED:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        places[name] = len(data)
        data += struct.pack(">I", len(content)) + content
    stamp = struct.pack(">Q", 0) if version > 1 else b""

    def folder(name, count, first):
        return struct.pack(">IHII", offsets.get(name, 0), FOLDER, count, first) + stamp

    def file(name, bits=0):
        return struct.pack(">IHHHI", offsets[name], bits, 0, 0, places[name]) + stamp

    tree = (
        folder("", 2, 1)
        + folder("dogs", 2, 3)
        + file("top.webp")
        + file("loud.ogg", flags)
        + file("small.txt")
    )
    begin = 20 + (4 if version > 2 else 0)
    head = struct.pack(
        ">4sIIII", b"qres", version, begin, begin + len(tree), begin + len(tree) + len(data)
    )
    return head + (struct.pack(">I", 0) if version > 2 else b"") + tree + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("flags", [0, COMPRESSED])
def test_files_of_an_archive_are_read_by_their_paths(tmp_path, version, flags):
    file = tmp_path / "a.rcc"
    file.write_bytes(archive(version, flags=flags))
    assert read_rcc(file) == {
        "/dogs/loud.ogg": b"bark" * 9,
        "/dogs/small.txt": b"",
        "/top.webp": b"picture",
    }


@pytest.mark.parametrize(
    "damage", ["empty", "magic", "version", "truncated", "zstd", "itself", "shared"]
)
def test_a_damaged_archive_is_refused_by_name(tmp_path, damage):
    good = archive()
    bad = {
        "empty": b"",
        "magic": b"qrex" + good[4:],
        "version": good[:4] + struct.pack(">I", 9) + good[8:],
        "truncated": good[:-30],
        "zstd": archive(flags=ZSTD),
        "itself": good[: 24 + 22 + 6]
        + struct.pack(">II", 2, 0)
        + good[24 + 22 + 14 :],  # the folder holds the root
        "shared": good[: 24 + 22 + 6]
        + struct.pack(">II", 2, 2)
        + good[24 + 22 + 14 :],  # and here its neighbour
    }[damage]
    file = tmp_path / "bad.rcc"
    file.write_bytes(bad)
    with pytest.raises(DataError, match="bad.rcc"):
        read_rcc(file)


def test_a_compressed_file_cannot_grow_beyond_what_it_says(tmp_path):
    file = tmp_path / "a.rcc"
    content = archive(flags=COMPRESSED, sound=b"x" * 10_000)
    file.write_bytes(
        content.replace(struct.pack(">I", 10_000) + b"\x78", struct.pack(">I", 8) + b"\x78")
    )
    assert len(read_rcc(file)["/dogs/loud.ogg"]) <= 8
