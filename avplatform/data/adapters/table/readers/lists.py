"""Lists without a header: Audacity's label tracks, and the event lists of sed_eval and DCASE."""

from __future__ import annotations

from avplatform.data.adapters.table.events import Reading, labels_of, seconds_of


def is_list(text: str) -> bool:
    """Return whether the first line is a row of tabs that begins with times, or has them second."""
    first = next((line for line in text.split("\n") if line.strip()), "").split("\t")
    return len(first) > 2 and (_times(first[:2]) or (len(first) > 3 and _times(first[1:3])))


def read_list(reading: Reading, text: str) -> None:
    r"""Read rows of "onset, offset, label" or "file, onset, offset, label", separated by tabs.

    Rows without a file belong to the video of the list's own name. A line of Audacity that begins
    with "\" holds the frequencies of the label before it, which are not read.
    """
    for line, row in enumerate(text.split("\n"), 1):
        if not row.strip():
            continue
        cells = row.split("\t")
        if cells[0] == "\\":
            reading.note("frequencies that are not read", line, " ".join(cells[1:]))
            continue
        named = len(cells) > 3 and not _times(cells[:2])
        video, cells = (cells[0], cells[1:]) if named else (reading.file.stem, cells)
        if len(cells) != 3:
            reading.fault(line, "is not a row of onset, offset and label, separated by tabs")
            continue
        label = labels_of(cells[2], several=False, separator=reading.separator)
        reading.add(
            line, {"video": video, "onset": cells[0], "offset": cells[1], "label": label or [""]}
        )


def _times(cells: list[str]) -> bool:
    try:
        for cell in cells:
            seconds_of(cell.lstrip("-"))
    except ValueError:
        return False
    return True
