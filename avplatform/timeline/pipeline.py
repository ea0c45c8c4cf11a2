"""From a video of any length to its event timeline: `pipeline(model)(video)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch

from avplatform.base.console import readable
from avplatform.exported.runtime import check_without_bank, open_model
from avplatform.labels.assumed import ASSUMED, CALIBRATED
from avplatform.labels.open import check_open, check_texts, embed_labels, never_trained_on
from avplatform.labels.unseen import calibrated
from avplatform.models.av_model import AVModel, any_tensor
from avplatform.models.contracts import Parse
from avplatform.models.errors import UsageError
from avplatform.tasks.registry import task_of_model, with_threshold
from avplatform.timeline.event import NEVER_TRAINED, Event, events_of
from avplatform.timeline.labels import checked_labels, event_names, open_task
from avplatform.timeline.options import PipelineConfig, device_of
from avplatform.timeline.reading import (
    ClipFeatures,
    Extractor,
    check_fits,
    check_segments,
    extractor_of_model,
    read_features,
)
from avplatform.timeline.several import Opened, Several
from avplatform.timeline.timeline import Timeline
from avplatform.timeline.windows import Features, features_of, parse_videos
from avplatform.training_free.model import TRAINING_FREE, TrainingFree, open_for_videos

if TYPE_CHECKING:
    from avplatform.features.container import MediaInfo

__all__ = [
    "ClipFeatures",
    "Event",
    "Extractor",
    "Pipeline",
    "PipelineConfig",
    "Timeline",
    "pipeline",
]


def pipeline(
    model: str | Path | AVModel,
    *,
    labels: Sequence[str] | None = None,
    embeddings: str | None = None,
    recipe: str | None = None,
    weights: Mapping[str, str | Path] | None = None,
    extractor: Extractor | None = None,
    config: PipelineConfig | None = None,
) -> Pipeline:
    """Return a callable that parses videos.

    Args:
        model: run folder, model folder, hub id, FILE.onnx, "training-free", or a model.
        labels: texts to look for instead of the model's own classes (LEAP, training-free).
        embeddings: source of the labels' embeddings; default: the one of the model's training.
        recipe: name of the recipe of the model's features; default: the recipe in its config.
        weights: files of the recipe's backbones by name, or "folder" for a folder of them.
        extractor: makes the features; default: one for the recipe.
        config: windows and decisions.

    Raises:
        UsageError: the model cannot look for other labels, or its features are not known or do not
            fit the recipe.
        DataError: the model does not exist.

    Examples:
        parse = pipeline("runs/mine")
        for event in parse("holiday.mp4").events:
            print(event.stream, event.label, event.onset, event.offset)
        for timeline in parse(["one.mp4", "two.mp4"]):
            timeline.save(f"out/{Path(timeline.video).stem}.json")
    """
    name = "model" if isinstance(model, AVModel) else str(model)
    config = config or PipelineConfig()
    if labels is None and embeddings is not None:
        raise UsageError(
            "embeddings are the source of the labels that you give; give labels too, or leave them "
            "out"
        )
    if name == TRAINING_FREE:
        if any(x is not None for x in (embeddings, config.window, config.hop, config.unseen)):
            raise UsageError(
                f"{TRAINING_FREE} embeds labels by CLIP and CLAP, and scores every second by "
                "itself, without a bank; leave embeddings, window, hop and unseen out"
            )
        if config.runtime == "onnx":
            raise UsageError(f"{TRAINING_FREE} is not exported; leave runtime out")
        opened, extractor = open_for_videos(
            None if labels is None else checked_labels(labels),
            recipe=recipe,
            weights=weights,
            extractor=extractor,
            device=device_of(config),
            limits=config.limits,
        )
        return Pipeline(opened, extractor, name=name, labels=None, embeddings=None, config=config)
    loaded = open_model(model, runtime=config.runtime)
    if labels is not None:
        check_open(loaded)
    if extractor is None:
        device = device_of(config)
        extractor = extractor_of_model(
            loaded, recipe=recipe, weights=weights, device=device, limits=config.limits
        )
    return Pipeline(
        loaded, extractor, name=name, labels=labels, embeddings=embeddings, config=config
    )


class Pipeline:
    """Parses videos with one model and one set of labels."""

    def __init__(
        self,
        model: AVModel,
        extractor: Extractor,
        *,
        name: str,
        labels: Sequence[str] | None,
        embeddings: str | None,
        config: PipelineConfig,
    ) -> None:
        self.model = model.eval().to(device_of(config))
        self.extractor, self.name, self.config = extractor, name, config
        self.task = with_threshold(task_of_model(model.config), config.threshold)
        self.window, self.hop = config.windows(model.config)
        self.segment_seconds = model.config.segment_seconds
        self.training_free = isinstance(model, TrainingFree)
        self.open_labels = labels is not None or self.training_free
        self.label_embeddings: torch.Tensor | None = None
        if labels is not None:
            self.task, texts = open_task(self.task, model, labels)
            found = embed_labels(model, texts, source=embeddings)
            check_texts(found)
            self.label_embeddings = found.values.to(any_tensor(model).device)
        self.labels = event_names(self.task, model)
        self.never_trained_on = never_trained_on(model.config, self.labels)
        if self.task.unseen_rule() is not None:
            check_without_bank(model, self.never_trained_on, config.unseen)
        self.with_bank = calibrated(
            model,
            self.task,
            self.label_embeddings,
            self.labels,
            assumed=config.unseen or "training",
            asked=config.unseen is not None,
        )

    @overload
    def __call__(
        self,
        video: str | Path | Features | Mapping[str, np.ndarray],
        *,
        info: MediaInfo | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Timeline: ...

    @overload
    def __call__(
        self, video: list[Any] | tuple[Any, ...] | Iterator[Any]
    ) -> Iterator[Timeline]: ...

    def __call__(
        self,
        video: str | Path | Features | Mapping[str, np.ndarray] | Iterable[Any],
        *,
        info: MediaInfo | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Timeline | Iterator[Timeline]:
        """Parse one video, several videos, or features that were extracted before.

        Several videos are read when a timeline is asked for, until they fill a batch of windows
        (`batch_size`), and these are parsed together. The iterator raises the error of a file at
        its turn, and goes on with the next file if it is asked again.

        Args:
            video: any file that PyAV reads; or several, in an iterable of any length; or
                `Features`, or a mapping of its arrays: audio, visual and, for some models, motion.
            info: the result of `avplatform.features.media.probe`; default: the file is probed here.
            on_progress: called with the fraction of the features that are extracted.

        Raises:
            DataError: the file cannot be read, or has neither video nor sound.
            UsageError: the extractor's segments do not last as long as the model's, the features
                do not fit the model, or `info` or `on_progress` is given without one file.
        """
        if isinstance(video, (str, Path)):
            opened = self.read(video, info=info, on_progress=on_progress)
            return self.timelines([opened])[0]
        if info is not None or on_progress is not None:
            raise UsageError("info and on_progress are for one file; leave them out")
        if isinstance(video, (Features, Mapping)):
            return self.timelines([self.read(video)])[0]
        if not isinstance(video, Iterable) or isinstance(video, (bytes, np.ndarray)):
            raise UsageError(
                f"a {type(video).__name__} is not a video; give a path, several paths, or "
                "features as Features(audio=..., visual=...)"
            )
        return Several(self, video)

    def read(
        self,
        video: Any,
        *,
        info: MediaInfo | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Opened:
        """Return the features of a video, extracted or given; the arguments are those of a call."""
        if isinstance(video, (Features, Mapping)):
            features = features_of(video)
            check_fits(self.model, features)
            return Opened(features=features)
        if not isinstance(video, (str, Path)):
            raise UsageError(
                f"a {type(video).__name__} is not a video; give a path, or features as "
                "Features(audio=..., visual=...)"
            )
        from avplatform.features.media import probe

        check_segments(self.model, self.extractor)
        info = info or probe(video, limits=self.config.limits)
        features, present = read_features(
            self.extractor, video, duration=info.duration, info=info, on_progress=on_progress
        )
        check_fits(self.model, features)
        return Opened(
            features=features,
            present=present,
            duration=info.duration,
            video=readable(video),
            info=info,
        )

    def timelines(self, videos: Sequence[Opened]) -> list[Timeline]:
        """Return the timelines of videos, whose windows are parsed together."""
        parses = parse_videos(
            cast(AVModel, self.with_bank or self.model),
            [video.features for video in videos],
            window=self.window,
            hop=self.hop,
            batch_size=self.config.batch_size,
            label_embeddings=self.label_embeddings,
        )
        return [self._timeline(*pair) for pair in zip(videos, parses, strict=True)]

    def parse(
        self,
        features: Features,
        *,
        present: dict[str, bool] | None = None,
        duration: float | None = None,
        video: str = "",
    ) -> Timeline:
        """Parse features that were extracted before.

        Args:
            features: the features of the whole video.
            present: whether the file has "audio" and "visual"; default: it has both.
            duration: length in seconds; default: that of all segments.
            video: the name of the video.
        """
        opened = Opened(features=features, present=present or {}, duration=duration, video=video)
        return self.timelines([opened])[0]

    def _timeline(self, opened: Opened, parse: Parse) -> Timeline:
        """Return the timeline of a video from its merged parse."""
        features, present, duration = opened.features, opened.present, opened.duration
        decided, scored = self.task.events(self.task.decide(parse)), self.task.probabilities(parse)
        found = {name: maps[:, 0].numpy() for name, maps in decided.items()}
        scores = {name: values[:, 0].numpy() for name, values in scored.items()}
        notes = _silence_absent(found, scores, present)
        # The last segment ends where the video ends, up to half a segment earlier or later.
        each = self.segment_seconds
        whole = len(features) * each
        duration = whole if duration is None else min(duration, whole + each / 2)
        timeline = Timeline(
            video=opened.video,
            duration=duration,
            model=self.name,
            task=self.task.name,
            decoder=self.model.config.decoder._type,
            encoder=self.model.config.encoder._type,
            labels=self.labels,
            open_labels=self.open_labels,
            never_trained_on=self.never_trained_on,
            bank=self.with_bank.about["assumed"] if self.with_bank else None,
            events=events_of(
                found,
                scores,
                self.labels,
                duration=duration,
                segment_seconds=each,
                never_trained_on=self.never_trained_on,
            ),
            segment_seconds=each,
            scores=scores,
            found=found,
            attention=_attention(self.model, parse, len(self.labels), present),
            notes=notes,
        )
        if opened.info is not None:
            names = ("fps", "width", "height", "rotation", "has_audio", "has_video")
            timeline.about = {name: getattr(opened.info, name, None) for name in names}
        if self.never_trained_on or self.open_labels:
            calibration = f", {CALIBRATED}, {ASSUMED[timeline.bank]}" if timeline.bank else ""
            given = "The labels were given by the user; the" if self.open_labels else "The"
            rest = (
                f"{NEVER_TRAINED} {', '.join(self.never_trained_on)}: its probabilities for them "
                f"are guesses{calibration}."
                if self.never_trained_on
                else "trained on all of them."
            )
            timeline.notes.append(f"{given} model was {rest}")
        threshold = getattr(self.task.config, "threshold", None)
        if threshold is not None and not timeline.events:
            highest = max(float(values.max()) for values in scores.values())
            advice = "A lower threshold shows weaker events."
            if self.never_trained_on and not (self.training_free or self.with_bank):
                advice = (
                    "Labels that a model was never trained on score low: try a lower threshold, "
                    "such as 0.01."
                )
            timeline.notes.append(
                f"No label reached the threshold of {threshold:g}; the highest probability was "
                f"{highest:.2g}. {advice}"
            )
        return timeline


def _silence_absent(
    found: dict[str, np.ndarray], scores: dict[str, np.ndarray], present: dict[str, bool]
) -> list[str]:
    """Clear what was found in streams that the file lacks, and return the notes about it."""
    notes = []
    for stream, kind in (("audio", "sound"), ("visual", "pictures")):
        if present.get(stream, True):
            continue
        silenced = [name for name in (stream, "av") if name in found]
        for name in silenced:
            found[name] = np.zeros_like(found[name])
            scores[name] = np.zeros_like(scores[name])
        names = " and ".join(silenced)
        notes.append(
            f"The file has no {kind}; the model got zeros for it, and no {names} events are "
            "reported."
        )
    return notes


def _attention(
    model: AVModel, parse: Parse, labels: int, present: dict[str, bool]
) -> dict[str, np.ndarray]:
    """Return the attention per stream, for the labels of events and the streams in the file."""
    if parse.attention is None:
        return {}
    streams: tuple[str, ...] = getattr(model.decoder, "streams", ())
    names = [{"fused": "av"}.get(name, name) for name in streams]
    return {
        name: parse.attention[0, number, :labels].numpy()
        for number, name in enumerate(names)
        if present.get(name, all(present.values()))
    }
