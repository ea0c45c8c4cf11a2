"""The timeline of a video: its events, and the scores and attention of every segment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avplatform.models.contracts import STREAMS
from avplatform.models.errors import UsageError
from avplatform.timeline.event import NEVER_TRAINED, Event

if TYPE_CHECKING:
    from pandas import DataFrame

    from avplatform.base.drawing import Figure
    from avplatform.timeline.preview import Preview


@dataclass(kw_only=True)
class Timeline:
    """What a model found in one video.

    Shape: scores and found are [N, C] per stream, for N segments and C labels; attention is [C, N]
    per stream, and sums to 1 over time.
    """

    video: str
    """the file, as it was given"""
    duration: float
    """seconds"""
    model: str
    task: str
    decoder: str
    encoder: str = ""
    labels: list[str]
    open_labels: bool = False
    """whether the user gave the labels, so that they are not those of the model's training"""
    never_trained_on: list[str] = field(default_factory=list)
    """those of the labels that the model was never trained on"""
    bank: str | None = None
    """what the model's bank assumed of these labels; None: it was not used"""
    events: list[Event] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    attention: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """sentences that a reader must know, such as that the file lacks a stream"""
    about: dict[str, Any] = field(default_factory=dict)
    """properties of the file: frame rate, size, streams"""
    segment_seconds: float = 1.0

    @property
    def streams(self) -> list[str]:
        """The streams that were parsed, in the order audio, visual, av."""
        return [stream for stream in STREAMS if stream in self.found]

    @property
    def cell(self) -> str:
        """The encoder, decoder and task for a reader."""
        encoder = f"{self.encoder} + " if self.encoder else ""
        return f"{encoder}{self.decoder} on {self.task}"

    def shown_labels(self) -> list[str]:
        """Return the labels that occur in an event, in class order."""
        present = {event.label for event in self.events}
        return [label for label in self.labels if label in present]

    def marked(self, label: str) -> str:
        """Return a label for a reader, with the mark if the model was never trained on it."""
        return f"{label} ({NEVER_TRAINED})" if label in self.never_trained_on else label

    def save(
        self,
        path: str | Path,
        *,
        video: str | Path | None = None,
        preview: Preview | None = None,
        embed_video: bool = False,
        address: bool = True,
    ) -> Path:
        """Write one file, by its suffix, or a folder with all files; return its path.

        Args:
            path: a file that ends in .json, .csv, .eaf, .vtt, .html or .png; a name without a
                suffix, an existing folder or a name that ends in "/" gets the files of `avplatform
                predict`.
            video: the video that the page and the ELAN file name; default: `self.video`.
            preview: frames and sound for the page and the picture (`preview.preview`).
            embed_video: put the video into the page itself.
            address: name the relative path of the video in the page and in the ELAN file; False:
                name none, as where the files or the video will not stay where they are.

        Raises:
            UsageError: the suffix is not known, or the video cannot be embedded.
            DataError: the files cannot be written.
        """
        from avplatform.timeline.saving import save

        return save(
            self, path, video=video, preview=preview, embed_video=embed_video, address=address
        )

    def to_dataframe(self) -> DataFrame:
        """Return the events as a pandas table, one row per event in the order of `events`.

        The columns are video, stream, label, onset, offset (seconds), score, never_trained_on.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError(
                "a table of events needs pandas; pip install pandas, or use save('events.csv')"
            ) from None
        names = ["video", *Event.__dataclass_fields__]
        columns = ["video", "stream", "label", "onset", "offset", "score", "never_trained_on"]
        rows = [[self.video, *vars(event).values()] for event in self.events]
        return pandas.DataFrame(rows, columns=names)[columns]

    def plot(self, preview: Preview | None = None) -> Figure:
        """Return the picture of the timeline as a Matplotlib figure.

        Args:
            preview: frames and sound to show above the events.
        """
        from avplatform.timeline.picture import draw

        return draw(self, preview)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the events of each stream, without scripts or links."""
        from avplatform.timeline.notebook import fragment

        return fragment(self)
