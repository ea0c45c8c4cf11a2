"""Event lists in every format that is read, as the programs write them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.data.adapters.table.events import Event

COLUMNS = ("video", "onset", "offset", "label", "stream", "split", "score")


def rows_of(events):
    """Return the events as rows of text or numbers, with empty cells."""
    return [[getattr(event, name) for name in COLUMNS] for event in events]


def delimited(events, file: Path, *, delimiter=",", comma=False, encoding="utf-8", quoting=0):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n", quoting=quoting)
    writer.writerow(COLUMNS)
    for row in rows_of(events):
        text = ["" if cell is None else str(cell) for cell in row]
        if comma:
            text[1:3] = [cell.replace(".", ",") for cell in text[1:3]]
        writer.writerow(text)
    file.write_bytes(out.getvalue().encode(encoding))
    return [file]


def csv_file(events, folder):
    return delimited(events, folder / "events.csv")


def tsv_file(events, folder):
    return delimited(events, folder / "events.tsv", delimiter="\t")


def excel_file(events, folder):
    """What a spreadsheet with decimal commas writes: semicolons, quotes and a byte order mark."""
    options = {"delimiter": ";", "comma": True, "encoding": "utf-8-sig"}
    return delimited(events, folder / "excel.csv", quoting=csv.QUOTE_ALL, **options)


def utf16_file(events, folder):
    return delimited(events, folder / "unicode.txt", delimiter="\t", encoding="utf-16")


def parquet_file(events, folder):
    columns = list(zip(*rows_of(events), strict=True))
    pq.write_table(
        pa.table(dict(zip(COLUMNS, map(list, columns), strict=True))), folder / "e.parquet"
    )
    return [folder / "e.parquet"]


def json_file(events, folder):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(events)]
    (folder / "events.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return [folder / "events.json"]


def jsonl_file(events, folder):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in rows_of(events)]
    lines = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows]
    (folder / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return [folder / "events.jsonl"]


def by_video(events):
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.video, []).append(event)
    return groups.items()


def audacity_files(events, folder):
    for video, mine in by_video(events):
        lines = [f"{e.onset:.6f}\t{e.offset:.6f}\t{e.label}\n" for e in mine]
        lines.insert(1, "\\\t200.000000\t4000.000000\n")  # a spectral selection
        (folder / f"{video}.txt").write_text("".join(lines), encoding="utf-8")
    return [folder]


def sed_eval_file(events, folder):
    lines = [f"{e.video}.wav\t{e.onset}\t{e.offset}\t{e.label}" for e in events]
    (folder / "list.ann").write_text("\n".join(lines), encoding="utf-8")
    return [folder / "list.ann"]


def dcase_file(events, folder):
    lines = ["filename\tonset\toffset\tevent_label"]
    lines += [f"{e.video}.wav\t{e.onset}\t{e.offset}\t{e.label}" for e in events]
    (folder / "dcase.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / "dcase.tsv"]


def clock(seconds):
    whole = round(seconds * 1000)
    minutes = f"{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}.{whole % 1000:03d}"
    return f"{whole // 3_600_000:02d}:{minutes}" if whole >= 3_600_000 else minutes


def vtt_files(events, folder):
    for video, mine in by_video(events):
        text = "WEBVTT - made by a test\n\nNOTE a comment\n\nSTYLE\n::cue { color: red }\n"
        for n, e in enumerate(mine):
            label = e.label.replace("&", "&amp;").replace("<", "&lt;")
            text += f"\n{n}\n{clock(e.onset)} --> {clock(e.offset)} align:start\n"
            text += f"<v {e.stream}>{label}</v>\n"
        (folder / f"{video}.vtt").write_text(text, encoding="utf-8")
    return [folder]


def elan_files(events, folder):
    for video, mine in by_video(events):
        times = [t for e in mine for t in (e.onset, e.offset)]
        slots = "".join(
            f'<TIME_SLOT TIME_SLOT_ID="t{n}" TIME_VALUE="{round(t * 1000)}"/>\n'
            for n, t in enumerate(times)
        )
        tiers = ""
        for n, e in enumerate(mine):
            label = e.label.replace("&", "&amp;").replace("<", "&lt;")
            refs = f'TIME_SLOT_REF1="t{2 * n}" TIME_SLOT_REF2="t{2 * n + 1}"'
            tiers += (
                f'<TIER TIER_ID="{e.stream}">\n<ANNOTATION><ALIGNABLE_ANNOTATION '
                f'ANNOTATION_ID="a{n}" {refs}>\n<ANNOTATION_VALUE>{label}</ANNOTATION_VALUE>'
                "</ALIGNABLE_ANNOTATION></ANNOTATION></TIER>\n"
            )
        (folder / f"{video}-annotated.eaf").write_text(
            '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT FORMAT="3.0">\n'
            f'<HEADER><MEDIA_DESCRIPTOR MEDIA_URL="file:///media/{video}.mp4"/></HEADER>\n'
            f"<TIME_ORDER>\n{slots}</TIME_ORDER>\n{tiers}</ANNOTATION_DOCUMENT>\n",
            encoding="utf-8",
        )
    return [folder]


def via_file(events, folder):
    attributes = {
        "1": {"aname": "label", "options": {}},
        "2": {"aname": "stream", "options": {"0": "audio", "1": "visual", "2": "av"}},
    }
    out = io.StringIO()
    out.write("# Exported using VGG Image Annotator\n")
    out.write(f"# ATTRIBUTE = {json.dumps(attributes)}\n")
    out.write("# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,")
    out.write("spatial_coordinates,metadata\n")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for n, e in enumerate(events):
        values = {"1": e.label, "2": str(("audio", "visual", "av").index(e.stream))}
        times = json.dumps([e.onset, e.offset])
        writer.writerow(
            [f"1_{n}", json.dumps([f"{e.video}.mp4"]), 0, times, "[]", json.dumps(values)]
        )
    writer.writerow(["1_x", json.dumps(["still.mp4"]), 0, "[1.5]", "[2,1,1,5,5]", "{}"])
    (folder / "via.csv").write_text(out.getvalue(), encoding="utf-8")
    return [folder / "via.csv"]


WHOLE = {
    "csv": csv_file,
    "tsv": tsv_file,
    "excel": excel_file,
    "utf-16": utf16_file,
    "parquet": parquet_file,
    "json": json_file,
    "jsonl": jsonl_file,
}
"""Formats that hold every column."""
STREAMED = {"vtt": vtt_files, "elan": elan_files, "via": via_file}
"""Formats that hold times, labels and, by a convention, streams."""
PLAIN = {"audacity": audacity_files, "sed_eval": sed_eval_file, "dcase": dcase_file}
"""Formats that hold times and labels only."""
