"""The 28 event classes of AVE in the order of their labels, and background."""

from __future__ import annotations

from avplatform.tasks.avel import AVEL

TASK = AVEL.name
"""Name of the task that AVE was made for."""

EVENTS: tuple[str, ...] = (
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane",
    "Race car, auto racing", "Female speech, woman speaking", "Helicopter", "Violin, fiddle",
    "Flute", "Ukulele", "Frying (food)", "Truck", "Shofar", "Motorcycle", "Acoustic guitar",
    "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus", "Chainsaw", "Cat",
    "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip
"""Event classes as Annotations.txt spells them, in the order of their first appearance there."""

BACKGROUND = len(EVENTS)
"""Index of the label of a segment without an event."""

CLASSES: tuple[str, ...] = (*EVENTS, "background")
"""All 29 classes, background last."""

LABEL_TEXTS: tuple[str, ...] = CLASSES
"""Texts whose embeddings are the queries of a label-text decoder; embedding drops punctuation."""

FIRST_PHRASES: tuple[str, ...] = tuple(text.split(",")[0] for text in CLASSES)
"""Shorter texts: the words before the first comma."""

TEXTS: dict[str, tuple[str, ...]] = {"full": LABEL_TEXTS, "first_phrase": FIRST_PHRASES}
"""Label texts by spelling."""
