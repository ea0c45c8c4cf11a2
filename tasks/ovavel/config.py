"""Options of open-vocabulary event localization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.models.checks import finite
from avplatform.models.errors import UsageError
from avplatform.tasks.avel.config import AVELConfig


@dataclass(kw_only=True)
class OVAVELConfig(AVELConfig):
    """Losses and decisions of open-vocabulary event localization: those of event localization."""

    label_texts: Literal["other", "background"] = "other"  # type: ignore[assignment]
    """text of background; other: as published"""
    gamma: float | None = None
    """subtracted from seen classes' logits in figures beside the plain ones; none: by validation"""

    other_hole: bool = False
    """agreement: where a clip's class is background, no label in the F-scores, as released"""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = (self.decision, self.clip_class, self.label_set)
        if self.other_hole and rule != ("agreement", "first", "with_background"):
            raise UsageError(
                "OVAVELConfig.other_hole is for a clip whose streams agree on background; leave it "
                "off, or set decision to agreement, clip_class to first and label_set to "
                "with_background"
            )
        finite(self, "gamma")
        largest = self.decision == "argmax" and self.label_set == "with_background"
        if self.gamma is not None and not (largest and self.supervision == "full"):
            raise UsageError(
                f"OVAVELConfig.gamma is {self.gamma}, but only the decision argmax in full "
                "supervision, with background among the texts (label_set with_background), is that "
                "of the largest logit; leave it out"
            )
