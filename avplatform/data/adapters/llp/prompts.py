"""Prompts and thresholds of LLP's segment pseudo-labels.

Source: VALOR (NeurIPS 2023), section 3: CLIP scores frames against image prompts, CLAP scores
seconds of sound against audio prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avplatform.data.adapters.contracts import Modality, Spelling
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.models.errors import unknown_name

MODALITIES: tuple[Modality, ...] = ("visual", "audio")
SPELLINGS: tuple[Spelling, ...] = ("official", "corrected")


class ClassPrompt(NamedTuple):
    """A class in the prompts for CLIP (image) and CLAP (sound), with the logits of its thresholds.

    The class is active where the logit is above its threshold.
    """

    image: str
    visual_threshold: float
    sound: str
    audio_threshold: float


PROMPTS: dict[str, ClassPrompt] = {
    "Speech": ClassPrompt("people talking", 20, "speech", 0),
    "Car": ClassPrompt("a car", 15, "car", 0),
    "Cheering": ClassPrompt("people cheering", 18, "cheering", 1),
    "Dog": ClassPrompt("a dog", 14, "dog", 4),
    "Cat": ClassPrompt("a cat", 15, "cat", 6),
    "Frying_(food)": ClassPrompt("frying food", 18, "frying (food)", -2),
    "Basketball_bounce": ClassPrompt("people playing basketball", 18, "basketball bounce", 4),
    "Fire_alarm": ClassPrompt("a fire alarm", 15, "fire alarm", 4),
    "Chainsaw": ClassPrompt("a chainsaw", 15, "chainsaw", 2),
    "Cello": ClassPrompt("a cello", 15, "cello", 2),
    "Banjo": ClassPrompt("a banjo", 15, "banjo", 2),
    "Singing": ClassPrompt("people singing", 18, "singing", 1),
    "Chicken_rooster": ClassPrompt("a chicken or a rooster", 15, "chicken, rooster", 2),
    "Violin_fiddle": ClassPrompt("a violin", 15, "violin fiddle", 3),
    "Vacuum_cleaner": ClassPrompt("a vaccum cleaner", 15, "vacuum cleaner", 0),
    "Baby_laughter": ClassPrompt("a laughing baby", 15, "baby laughter", 2),
    "Accordion": ClassPrompt("an accordion", 15, "accordion", 2),
    "Lawn_mower": ClassPrompt("a lawnmower", 15, "lawn mower", 2),
    "Motorcycle": ClassPrompt("a motorcycle", 15, "motorcycle", 0),
    "Helicopter": ClassPrompt("a helicopter", 16, "helicopter", 2),
    "Acoustic_guitar": ClassPrompt("a acoustic guiter", 14, "acoustic guitar", -1),
    "Telephone_bell_ringing": ClassPrompt("a ringing telephone", 15, "telephone bell ringing", 2),
    "Baby_cry_infant_cry": ClassPrompt("a crying baby", 15, "baby cry, infant cry", 3),
    "Blender": ClassPrompt("a blender", 15, "blender", 3),
    "Clapping": ClassPrompt("hands clapping", 18, "clapping", 0),
}
"""Prompts by class, with the spelling of the published labels ("vaccum", "a acoustic guiter")."""

CORRECTED_IMAGES = {"Vacuum_cleaner": "a vacuum cleaner", "Acoustic_guitar": "an acoustic guitar"}
"""Image texts in the corrected spelling, where it differs."""


def prompts(modality: Modality, spelling: Spelling = "official") -> tuple[str, ...]:
    """Return the 25 prompts of a modality, in the order of the classes.

    Examples:
        >>> prompts("visual")[1], prompts("audio")[1]
        ('A photo of a car.', 'This is a sound of car')
        >>> prompts("visual", "corrected")[20]
        'A photo of an acoustic guitar.'
    """
    _check_modality(modality)
    if spelling not in SPELLINGS:
        raise unknown_name("spelling", spelling, SPELLINGS)
    if modality == "audio":
        return tuple(f"This is a sound of {PROMPTS[name].sound}" for name in CLASSES)
    corrected = CORRECTED_IMAGES if spelling == "corrected" else {}
    return tuple(f"A photo of {corrected.get(name, PROMPTS[name].image)}." for name in CLASSES)


def thresholds(modality: Modality) -> np.ndarray:
    """Return the 25 logits above which a class is active.

    Shape: float64 [C].
    """
    _check_modality(modality)
    return np.array(
        [getattr(PROMPTS[name], f"{modality}_threshold") for name in CLASSES], dtype=np.float64
    )


def _check_modality(modality: str) -> None:
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
