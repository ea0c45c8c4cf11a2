"""ELAN documents (.eaf): an annotation is an event, its value the label."""

from __future__ import annotations

import re
from typing import Any
from xml.parsers import expat

from avplatform.data.adapters.table.events import STREAM_WORDS, Reading, names_of
from avplatform.models.errors import DataError

SCORE = re.compile(r"\s*\(([01]\.\d+)\)$")


def read_elan(reading: Reading) -> None:
    """Read the annotations of all tiers.

    A tier that is called as a stream ("audio", or "audio: dog") gives the stream. An annotation
    without a value has the name of its tier as its label. The video is the one that the document
    names, or else that of the file's own name.
    """
    document = _Document(reading)
    try:
        document.parser.Parse(reading.file.read_bytes(), True)
    except OSError as error:
        raise DataError(f"cannot read {reading.file}: {error.strerror or error}") from None
    except expat.ExpatError as error:
        text = expat.errors.messages[error.code]
        reading.fault(error.lineno, f"is not XML ({text})")
        return
    except (LookupError, ValueError) as error:  # of the encoding that the document names
        reading.fault(1, f"is not XML that can be read ({error})")
        return
    if document.root != "ANNOTATION_DOCUMENT":
        reading.fault(1, f"is not an ELAN document, but one of <{document.root}>")
        return
    for annotation in document.annotations:
        document.add(annotation)


class _Document:
    """Collects the slots and the annotations of a document with their lines."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.parser = parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse  # entities may hold anything, and ELAN has none
        self.root, self.tier, self.text = "", "", ""
        self.video: str | None = None
        self.slots: dict[str, str | None] = {}
        self.annotations: list[dict[str, Any]] = []
        self.by_id: dict[str, dict[str, Any]] = {}

    def _refuse(self, *_: Any) -> None:
        raise DataError(f"{self.reading.file} declares entities, which are not read; delete them")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.root, self.text = self.root or name, ""
        if name == "MEDIA_DESCRIPTOR" and self.video is None:
            media = attributes.get("MEDIA_URL") or attributes.get("RELATIVE_MEDIA_URL", "")
            self.video = names_of(media)[-1] or None
        elif name == "TIME_SLOT":
            self.slots[attributes.get("TIME_SLOT_ID", "")] = attributes.get("TIME_VALUE")
        elif name == "TIER":
            self.tier = attributes.get("TIER_ID", "")
        elif name in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
            found = {"line": self.parser.CurrentLineNumber, "tier": self.tier, **attributes}
            self.annotations.append(found)
            self.by_id[attributes.get("ANNOTATION_ID", "")] = found

    def _text(self, text: str) -> None:
        self.text += text

    def _end(self, name: str) -> None:
        if name == "ANNOTATION_VALUE" and self.annotations:
            self.annotations[-1]["value"] = self.text

    def add(self, annotation: dict[str, Any]) -> None:
        """Add an annotation as an event; a dependent one has the times of the one it refers to."""
        line, anchor, steps = annotation["line"], annotation, 0
        while "ANNOTATION_REF" in anchor and steps < 100:
            anchor, steps = self.by_id.get(anchor["ANNOTATION_REF"], {}), steps + 1
        times: list[str] = []
        for name in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
            value = self.slots.get(anchor.get(name, ""))
            if value is None or not value.isdigit():
                slot = anchor.get(name, "no slot")
                self.reading.fault(line, f"an annotation of the tier '{annotation['tier']}' has no "
                                         f"time ({slot}); align it in ELAN")  # fmt: skip
                return
            times.append(f"{int(value) // 1000}.{int(value) % 1000:03d}")  # milliseconds
        tier, _, rest = (part.strip() for part in annotation["tier"].partition(":"))
        stream = tier.casefold() if tier.casefold() in STREAM_WORDS else None
        label = annotation.get("value", "").strip()
        score = SCORE.search(label)
        label = SCORE.sub("", label)
        named = rest if stream else annotation["tier"]
        if not label and named:
            label = named
            self.reading.note("annotation named by its tier", line, named)
        video = self.video or self.reading.file.stem
        times_of = dict(zip(("onset", "offset"), times, strict=True))
        cells = {"video": video, "label": label, "stream": stream, **times_of}
        self.reading.add(line, {**cells, "score": score[1] if score else None})
