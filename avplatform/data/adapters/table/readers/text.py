"""The text of a file in the encodings that spreadsheets write."""

from __future__ import annotations

import codecs

from avplatform.data.adapters.table.events import Reading
from avplatform.models.errors import DataError

MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_of(reading: Reading) -> str:
    """Return a file's text with plain line ends, and note an encoding that is not UTF-8.

    Raises:
        DataError: the file cannot be read, is empty, or is not text.
    """
    file = reading.file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    if not content.strip():
        raise DataError(f"{file}, line 1: the file is empty")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{file}, line 1: this is a workbook, not a text; save the sheet as csv")
    if content.startswith(MARKS[1:]):
        text = content.decode("utf-16", errors="replace")
        reading.note("encoding", 1, "UTF-16, read as such")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            # Latin-1 as Windows writes it; the few bytes that have no character there are kept.
            text = content.decode("cp1252", errors="replace")
            shown = text.splitlines()[line - 1].strip()[:60]
            reading.note("encoding", line, f"not UTF-8; read as Windows-1252: '{shown}'")
        else:
            if content.startswith(MARKS[0]):
                reading.note("encoding", 1, "a byte order mark, which is left out")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file}, line {line}: this is not text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
