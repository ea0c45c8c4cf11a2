"""The three figures of every clip, for intervals and comparisons."""

from __future__ import annotations

from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.metrics import Arrays
from avplatform.tasks.ovavel.metrics import clip_figures, scored_labels


class OVAVELAnalysis(AVELAnalysis):
    """The analysis of event localization, with both F-scores."""

    def contributions(self, state: Arrays) -> Arrays:
        """Return accuracy and F-scores of each clip, in percent."""
        clips = clip_figures(scored_labels(state), state["true"], len(self.classes))
        return {name: 100 * values for name, values in clips.items()}
