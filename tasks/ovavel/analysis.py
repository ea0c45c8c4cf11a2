"""The three figures of every clip, for intervals and comparisons."""

from __future__ import annotations

import numpy as np

from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.metrics import Arrays
from avplatform.tasks.ovavel.metrics import clip_figures, scored_labels


class OVAVELAnalysis(AVELAnalysis):
    """The analysis of event localization, with both F-scores."""

    def contributions(self, state: Arrays) -> Arrays:
        """Return the three figures of each clip and their mean, in percent."""
        clips = clip_figures(scored_labels(state), state["true"], len(self.classes))
        out = {name: 100 * values for name, values in clips.items()}
        return out | {"average": np.mean(list(out.values()), axis=0)}
