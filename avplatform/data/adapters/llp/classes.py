"""The 25 classes of LLP in their fixed order, and the texts that describe them."""

from __future__ import annotations

from avplatform.tasks.avvp import AVVP

TASK = AVVP.name
"""Name of the task that LLP was made for."""

CLASSES: tuple[str, ...] = (
    "Speech", "Car", "Cheering", "Dog", "Cat", "Frying_(food)", "Basketball_bounce", "Fire_alarm",
    "Chainsaw", "Cello", "Banjo", "Singing", "Chicken_rooster", "Violin_fiddle", "Vacuum_cleaner",
    "Baby_laughter", "Accordion", "Lawn_mower", "Motorcycle", "Helicopter", "Acoustic_guitar",
    "Telephone_bell_ringing", "Baby_cry_infant_cry", "Blender", "Clapping",
)  # fmt: skip
"""Class names as the annotation files write them."""

LABEL_TEXTS: tuple[str, ...] = tuple(name.replace("_", " ") for name in CLASSES)
"""Texts whose embeddings are the queries of a label-text decoder."""

OFFICIAL_LABEL_TEXTS: tuple[str, ...] = tuple(
    {"Frying_(food)": "fry food", "Baby_cry_infant_cry": "baby cry infancy cry"}.get(
        name, name.replace("_", " ")
    )
    for name in CLASSES
)
"""The texts from which the published label embeddings were made, with their spelling."""

TEXTS: dict[str, tuple[str, ...]] = {"plain": LABEL_TEXTS, "official": OFFICIAL_LABEL_TEXTS}
"""Label texts by spelling."""
