"""The 67 event classes of OV-AVEBench in the order of their labels, and background."""

from __future__ import annotations

from avplatform.tasks.ovavel import BACKGROUND as NAME_OF_BACKGROUND
from avplatform.tasks.ovavel import OVAVEL

TASK = OVAVEL.name
"""Name of the task that OV-AVEBench was made for."""

EVENTS: tuple[str, ...] = (
    "airplane flyby", "ambulance siren", "arc welding", "baby laughter", "basketball bounce",
    "bird chirping", "bowling impact", "cat purring", "cattle mooing", "chainsawing trees",
    "chicken crowing", "child singing", "child speech", "church bell ringing", "cricket chirping",
    "crow cawing", "dog barking", "driving buses", "electric shaver", "engine accelerating",
    "female singing", "female speech", "fire truck siren", "fireworks banging", "frog croaking",
    "gibbon howling", "goose honking", "helicopter", "horse clip-clop", "lions roaring",
    "missile launch", "motorboat", "mynah bird singing", "ocean burbling", "people booing",
    "people burping", "people cheering", "people clapping", "people crowd", "people sniggering",
    "people whistling", "playing acoustic guitar", "playing banjo", "playing bass drum",
    "playing bass guitar", "playing bassoon", "playing cymbal", "playing drum kit",
    "playing electric guitar", "playing glockenspiel", "playing harp", "playing mandolin",
    "playing piano", "playing saxophone", "playing sitar", "playing synthesizer", "playing violin",
    "race car", "roller coaster running", "singing bowl", "slot machine", "train horning",
    "turkey gobbling", "typing on typewriter", "vacuum cleaner cleaning floors",
    "volcano explosion", "woodpecker pecking tree",
)  # fmt: skip
"""Event classes as the annotation files spell them, in the order of the list of all classes."""

UNSEEN: tuple[str, ...] = (
    "baby laughter", "basketball bounce", "bird chirping", "chainsawing trees", "chicken crowing",
    "church bell ringing", "dog barking", "driving buses", "electric shaver", "female singing",
    "goose honking", "helicopter", "lions roaring", "people clapping", "playing bassoon",
    "playing drum kit", "playing electric guitar", "playing piano", "playing saxophone",
    "train horning", "vacuum cleaner cleaning floors",
)  # fmt: skip
"""The classes that no training clip has; the files call them open, and the others close."""

SEEN: tuple[str, ...] = tuple(name for name in EVENTS if name not in UNSEEN)
"""The classes of the training clips, in the same order."""

BACKGROUND = len(EVENTS)
"""Index of the label of a segment without an event."""

CLASSES: tuple[str, ...] = (*EVENTS, NAME_OF_BACKGROUND)
"""All 68 labels, background last."""

OTHER = "other"
"""The authors' name for background, which is also its label text."""

_TEXTS = tuple("chainsaw trees" if name == "chainsawing trees" else name for name in EVENTS)
# GloVe has no vector for "chainsawing", and one for every other word of the names.

TEXTS: dict[str, tuple[str, ...]] = {
    "other": (*_TEXTS, OTHER),
    "background": (*_TEXTS, NAME_OF_BACKGROUND),
}
"""Label texts by spelling, which differ in the text of background."""
