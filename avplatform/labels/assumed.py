"""What is assumed of labels that a model was never trained on, in options and in words."""

from __future__ import annotations

from typing import Literal

Assumed = Literal["training", "present", "plain"]
"""What the rule for labels that a model was never trained on assumes.

training: each is as rare as a training class among the training clips; present: every clip holds
one of them; plain: nothing, the bank is not used and they keep the decoder's own logits.
"""
CALIBRATED = "calibrated by the model's bank"
ASSUMED = {
    "training": "assuming that each is as rare as a training class",
    "present": "assuming that every clip holds one of them",
}
CLIPS = 400
"""Clips of a bank, if they fit."""
