"""The training-free model, and how it is opened for videos and for a store of embeddings.

Source: CLIP (ICML 2021) and CLAP (ICASSP 2023), which compare a picture, or a sound, with texts.
The contrast, thresholds and smoothing are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from avplatform.data.adapters.registry import make_task
from avplatform.data.store.schema import DataSpec
from avplatform.features.backbones import weights_digest
from avplatform.features.fetch import ensure_weights
from avplatform.features.recipe import FeatureRecipe, get_recipe
from avplatform.features.teachers import (
    CLAP_PINNED,
    CLIP_PINNED,
    CLAPTeacher,
    CLIPTeacher,
    Teacher,
)
from avplatform.features.weights import Weights, check_names
from avplatform.labels.held_out import events_of_task
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import (
    Encoding,
    FeatureSpec,
    Output,
    Parse,
    Prediction,
    StreamPredictions,
)
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.registry import TASKS
from avplatform.training_free.contrast import HEARD, SEEN, contrast

if TYPE_CHECKING:
    from avplatform.features.extractor import Extractor
    from avplatform.features.media import Limits

TRAINING_FREE = "training-free"
"""The name of the model, in place of a folder or hub id."""
RECIPE = FeatureRecipe(
    name=TRAINING_FREE,
    audio=f"clap:{CLAP_PINNED}",
    visual=f"clip:{CLIP_PINNED}",
    frames_per_segment=1,
)
KINDS: dict[str, type[Teacher]] = {"clap": CLAPTeacher, "clip": CLIPTeacher}
PINNED = {"clap": CLAP_PINNED, "clip": CLIP_PINNED}
LONGEST = 2**16
"""Segments of a video's window: nothing is merged, since every second is scored by itself."""


@dataclass(kw_only=True)
class Embeddings:
    """The place of an encoder's options in the config: CLIP and CLAP are taken as they are."""

    _type: ClassVar[str] = "clip-clap"


@dataclass(kw_only=True)
class LabelTexts:
    """The place of a decoder's options in the config."""

    _type: ClassVar[str] = TRAINING_FREE


class TrainingFree(AVModel):
    """A model of CLIP's and CLAP's embeddings that was trained on nothing.

    A label is seen (heard) in a segment where the picture (the sound) is nearer to the label's text
    than to all that has no content, see `avplatform.training_free.contrast`; it is an audio-visual
    event where both agree.

    Args:
        labels: the labels.
        clip: sees.
        clap: hears.
        features: the embeddings that the model reads; default: of these teachers, without their
            source.
        task: the task by whose rules it decides and is scored; default: one that keeps the streams
            apart.
        texts: texts of the labels; default: the labels.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        clip: Teacher,
        clap: Teacher,
        features: FeatureSpec | None = None,
        task: str | None = None,
        texts: Sequence[str] | None = None,
        segments: int = LONGEST,
        segment_seconds: float = 1.0,
    ) -> None:
        nn.Module.__init__(self)
        self.companion = None
        texts = list(texts or labels)
        self.heard, self.seen = contrast(clap, texts, HEARD), contrast(clip, texts, SEEN)
        audio, visual = (stream.labels.shape[1] for stream in (self.heard, self.seen))
        self.config = AVModelConfig(
            task=task or next(name for name, kind in TASKS.items() if kind.streams == "apart"),
            classes=list(labels),
            label_texts=texts,
            features=features or FeatureSpec(audio_dim=audio, visual_dim=visual),
            encoder=Embeddings(),
            decoder=LabelTexts(),
            segments=segments,
            segment_seconds=segment_seconds,
            training_clips=dict.fromkeys(labels, 0),
        )
        self.to(clip.device).eval()

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        motion: Tensor | None = None,
        label_embeddings: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Output:
        """Score clips; the probability of an audio-visual event is the lower of both streams'.

        Shape: audio [B, T, Da]; visual [B, T, Dv]; nothing else is read.
        """
        streams = {"audio": self.heard(audio.float()), "visual": self.seen(visual.float())}
        streams["av"] = torch.minimum(*streams.values())
        whole = {name: found.amax(dim=1) for name, found in streams.items()}
        whole["av"] = torch.maximum(whole["audio"], whole["visual"])
        return Output(
            Parse(segment=_predicted(streams), video=_predicted(whole)), Encoding(audio, visual)
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        raise UsageError(
            f"the {TRAINING_FREE} model has nothing to save; open it by its name and labels"
        )


def open_for_videos(
    labels: Sequence[str] | None,
    *,
    recipe: str | None = None,
    weights: Weights | None = None,
    extractor: Any = None,
    device: torch.device | str = "cpu",
    limits: Limits | None = None,
) -> tuple[TrainingFree, Extractor]:
    """Return the model for some labels, and the extractor of its embeddings.

    A given `extractor` must be one of CLIP and CLAP.

    Raises:
        UsageError: there are no labels, transformers is not installed, or the recipe does not make
            embeddings of CLIP and CLAP.
        DataError: the weights are not here and cannot be fetched; the message says how to get them.
    """
    if not labels:
        raise UsageError(
            f"the {TRAINING_FREE} model has no classes of its own; say what to look for: "
            '--labels "dog barking, siren"'
        )
    if extractor is None:
        from avplatform.features.extractor import Extractor as MediaExtractor

        chosen = RECIPE if recipe is None else get_recipe(recipe)
        if kinds_of(chosen) is None:
            raise UsageError(
                f"the recipe {chosen.name} makes {chosen.audio} and {chosen.visual}; the "
                f"{TRAINING_FREE} model reads clap and clip: leave --recipe out"
            )
        extractor = MediaExtractor(chosen, weights, device, limits=limits)
    clip, clap = (
        getattr(getattr(extractor, stream, None), "teacher", None) for stream in ("visual", "audio")
    )
    if clip is None or clap is None:
        raise UsageError(f"the {TRAINING_FREE} model needs an extractor of clip and clap")
    return TrainingFree(labels, clip=clip, clap=clap, features=extractor.features), extractor


def open_for_data(
    spec: DataSpec, *, weights: Weights | None = None, device: torch.device | str = "cpu"
) -> TrainingFree:
    """Return the model for the classes and the embeddings of a store.

    Raises:
        UsageError: transformers is not installed.
        DataError: the store does not hold embeddings of CLIP and CLAP, or of other weights than
            those found.
    """
    made = spec.features.extractors
    kinds = kinds_of(FeatureRecipe.from_dict(made)) if made.get("recipe") else None
    if kinds is None:
        what = (
            "{audio} and {visual}".format(**made["recipe"])
            if made.get("recipe")
            else "features of unknown origin"
        )
        raise DataError(
            f"'{spec.name}' holds {what}; the {TRAINING_FREE} model compares texts with embeddings "
            "of CLIP and CLAP: extract the videos with `avplatform extract VIDEOS --annotations "
            "DIR --backbones clip-clap --out STORE`, then give --data STORE"
        )
    weights = dict(weights or {})
    check_names(weights, set(KINDS))
    ensure_weights(FeatureRecipe.from_dict(made), weights)
    teachers: dict[str, Teacher] = {}
    for stream, (kind, name) in kinds.items():
        teacher = KINDS[kind](str(weights.get(kind, name or PINNED[kind])), device=device)
        known = (made.get("weights") or {}).get(stream, {}).get("sha256")
        if known not in (None, weights_digest(teacher.model.state_dict())):
            raise DataError(
                f"the {stream} of '{spec.name}' was embedded by other weights than those of "
                f"{teacher.name}; give these: --weights {kind}=FOLDER"
            )
        teachers[kind] = teacher
    task = make_task(spec.task, spec=spec)
    names, texts = events_of_task(task)
    return TrainingFree(
        names,
        **teachers,
        features=spec.features,
        task=spec.task,
        texts=texts,
        segments=spec.segments,
        segment_seconds=spec.segment_seconds,
    )


def kinds_of(recipe: FeatureRecipe) -> dict[str, tuple[str, str]] | None:
    """Return kind and name of the backbones by stream; None unless they are CLAP and CLIP."""
    kinds = {}
    for stream, wanted in (("audio", "clap"), ("visual", "clip")):
        kind, _, name = str(getattr(recipe, stream)).partition(":")
        if kind != wanted:
            return None
        kinds[stream] = (kind, name)
    return kinds


def _predicted(probabilities: dict[str, Tensor]) -> StreamPredictions:
    return StreamPredictions(
        **{name: Prediction(values, "probability") for name, values in probabilities.items()}
    )
