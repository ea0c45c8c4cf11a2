"""Several videos, read one by one and parsed together: as many as fill a batch of windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from avplatform.timeline.windows import Features, window_starts

if TYPE_CHECKING:
    from avplatform.features.container import MediaInfo
    from avplatform.timeline.pipeline import Pipeline
    from avplatform.timeline.timeline import Timeline


@dataclass(kw_only=True)
class Opened:
    """The features of a video, and what is known of its file."""

    features: Features
    present: dict[str, bool] = field(default_factory=dict)
    """whether the file has "audio" and "visual"; default: it has both"""
    duration: float | None = None
    video: str = ""
    info: MediaInfo | None = None


class Several(Iterator["Timeline"]):
    """An iterator over the timelines of videos, in their order.

    It raises the error of a video at its turn, and goes on with the next one if it is asked again.
    At most as many videos are held as fill a batch of windows.

    Args:
        pipeline: parses the videos.
        videos: paths or features.
        opened: returns the path of an element of `videos` at the time when it is read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        videos: Iterable[Any],
        *,
        opened: Callable[[Any], Any] = lambda video: video,
    ) -> None:
        self.pipeline, self._videos, self._opened = pipeline, iter(videos), opened
        self._done: deque[tuple[Timeline | Exception, MediaInfo | None]] = deque()
        self.info: MediaInfo | None = None
        """What `probe` found about the file of the last timeline."""

    def __next__(self) -> Timeline:
        """Return the next timeline, or raise the error of its video."""
        if not self._done:
            self._read()
        found, self.info = self._done.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self) -> None:
        """Read videos until they fill a batch, or there is no other, and parse them together."""
        pipeline, windows = self.pipeline, 0
        read: list[Opened | Exception] = []
        while windows < pipeline.config.batch_size:
            try:
                video = next(self._videos)
            except StopIteration:
                break
            try:
                opened = pipeline.read(self._opened(video))
            except Exception as error:  # told at the turn of its video
                read.append(error)
            else:
                length = len(opened.features)
                windows += len(window_starts(length, window=pipeline.window, hop=pipeline.hop))
                read.append(opened)
        if not read:
            raise StopIteration
        opened_ones = [one for one in read if isinstance(one, Opened)]
        found: list[Timeline | Exception]
        try:
            found = list(pipeline.timelines(opened_ones))
        except Exception:  # one video must not take the others with it
            found = [self._alone(one) for one in opened_ones]
        timelines = iter(found)
        for one in read:
            if isinstance(one, Opened):
                self._done.append((next(timelines), one.info))
            else:
                self._done.append((one, None))

    def _alone(self, video: Opened) -> Timeline | Exception:
        """Parse one video by itself; return its error instead of raising it."""
        try:
            return next(iter(self.pipeline.timelines([video])))
        except Exception as error:
            return error
