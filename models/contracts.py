"""Contracts between stem, encoder, decoder and task: base classes and the data that they exchange.

Axes everywhere: B clips, T segments (one second each in LLP and AVE), C classes, D model width,
P map positions, E label-embedding width. All tensors are batch-first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from avplatform.models.checks import MAP_EDGE, sizes
from avplatform.models.errors import UsageError

STREAMS = ("audio", "visual", "av")
Gives = frozenset[str] | None
"""Names of the optional outputs of an encoder or decoder; None: not declared, it may give any."""
Rule = tuple[str, bool, str]
"""The name of an option, whether it is read in this combination, and what it is for."""
CLASS_AUX = frozenset(
    f"{name}_{stream}" for name in ("class_tokens", "token_scores") for stream in STREAMS[:2]
)
"""Entries of `aux` that belong to the classes; all others have a row per row of the batch."""
DECIDING_AUX = ("raw_logits", "uncertainty_av")
"""Entries of a parse's `aux` that decisions read: some weak heads decide the class of the clip by
`raw_logits`, and `uncertainty_av` says that the decoder weighs evidence."""
Options = dict[str, Any]
"""Options of a run, nested as in a YAML file."""


@dataclass(kw_only=True, frozen=True)
class Publication:
    """A paper: short name, venue, authors, BibTeX entry, and whether its code was released."""

    paper: str
    venue: str
    authors: str = ""
    citation: str = ""
    code: bool = True

    def __str__(self) -> str:
        return f"{self.paper} ({self.venue}){'' if self.code else ', no code'}"


@dataclass(kw_only=True, frozen=True)
class Needs:
    """What a task reads from a decoder's prediction.

    Args:
        asker: the task's name, for messages.
        streams: "apart" for separate audio and visual segments, "joint" for audio-visual segments.
        supervision: the task's supervision.
        logits: why the joint stream must hold logits.
        modalities: why the audio and visual streams must be predicted beside the joint one.
        no_relevance: why the task does not read a relevance per segment.

    The last three are written as the end of an error message. They are empty where the
    requirement does not apply.
    """

    asker: str
    streams: Literal["apart", "joint"] | None
    supervision: str
    logits: str = ""
    modalities: str = ""
    no_relevance: str = ""


@dataclass
class Encoding:
    """The output of an encoder.

    Shape: audio, visual and fused are [B, T, D]. `aux` holds named extras, such as
    spatial_attention [B, T, P]; the losses and decoders read similarity [B, T] (PSP), and av_gate
    [B, T], audio_query and visual_query [B, T, D] (CMBS), tokens_audio and tokens_visual [B, C, D]
    and, as learned, class_tokens_audio and class_tokens_visual [C, D] (MGN) where they are there.
    `AVModel` adds stem_audio and stem_visual [B, T, D], what the stem gave an encoder of vectors.
    """

    audio: Tensor
    visual: Tensor
    fused: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Prediction:
    """Scores of one stream, with a tag that says how to read them.

    `kind` is "logit" or "probability". `activation` is the function that turns the logits into
    probabilities: "sigmoid" (classes are independent) or "softmax" over the last axis (classes
    exclude each other).

    Shape: values are [B, T, C] for segments and [B, C] for videos.
    """

    values: Tensor
    kind: Literal["logit", "probability"] = "logit"
    activation: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def probability(self) -> Tensor:
        """The scores as probabilities, in at least single precision."""
        values = at_least_single(self.values)
        if self.kind == "probability":
            return values
        return values.sigmoid() if self.activation == "sigmoid" else values.softmax(dim=-1)

    @property
    def logit(self) -> Tensor:
        """The scores as logits, in at least single precision.

        Raises:
            ValueError: the model returned probabilities, from which the logits cannot be computed
                exactly.
        """
        if self.kind != "logit":
            raise ValueError("this prediction holds probabilities, not logits")
        return at_least_single(self.values)


@dataclass
class StreamPredictions:
    """One prediction per stream; a stream that the model does not predict is None."""

    audio: Prediction | None = None
    visual: Prediction | None = None
    av: Prediction | None = None


@dataclass
class Parse:
    """The output of a decoder: predictions per segment and for the whole video.

    `attention` says where each class was looked for, `relevance` which segments have any event.
    `aux` holds what only certain losses read, such as class_scores [B, C] (CMBS), or
    token_scores_audio and token_scores_visual [C, C], the class logits of each class token (MGN).
    `decided` holds the predictions that decisions read where they differ from those of the losses
    (CMPAE: the mean of two passes). `by_bank` says that a reference bank has given some classes
    their logits, which then are not the decoder's own.

    Shape: segment values [B, T, C], video values [B, C]; attention [B, S, C, T] for the S streams
    that were queried, in the order audio, visual, fused; relevance [B, T].
    """

    segment: StreamPredictions = field(default_factory=StreamPredictions)
    video: StreamPredictions = field(default_factory=StreamPredictions)
    attention: Tensor | None = None
    relevance: Prediction | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)
    queried_by_labels: bool = False  # LEAP: segments and video are scored by class texts
    decided: Parse | None = None
    by_bank: bool = False

    @property
    def for_decisions(self) -> Parse:
        """The predictions that decisions read."""
        return self.decided or self

    @property
    def predictions(self) -> dict[str, Prediction]:
        """All predictions by name, such as "segment.audio", "video.av" and "relevance"."""
        found = {
            f"{level}.{stream}": getattr(getattr(self, level), stream)
            for level in ("segment", "video")
            for stream in STREAMS
        }
        found["relevance"] = self.relevance
        return {name: prediction for name, prediction in found.items() if prediction is not None}

    def add(self, name: str, prediction: Prediction) -> None:
        """Set a prediction by its name in `predictions`."""
        level, _, stream = name.rpartition(".")
        setattr(getattr(self, level) if level else self, stream, prediction)


class Output(NamedTuple):
    """The output of `AVModel`: the parse, and the encoding that losses on features read."""

    parse: Parse
    encoding: Encoding


class Encoder(nn.Module):
    """Base class of all encoders: two feature streams in, an `Encoding` out.

    A subclass sets `wants` and takes keyword arguments only: `config` (its own dataclass),
    `audio_dim`, `visual_dim` and `positions` (P, the number of map positions, 1 for vectors). The
    stem passes to `forward`

    * with wants = "vectors": audio and visual, both [B, T, config.width], already projected, or
      where this is None the features as they are, see `FeatureStem` (config.space);
    * with wants = "maps": the raw audio vectors [B, T, audio_dim] and a map [B, T, P, visual_dim]
      (P = 1 for datasets of vectors).

    An encoder whose weights depend on the classes or on the length of the clips sets `sized`; it
    also takes `num_classes` (C) and `segments` (T of the training clips).

    The subclass must set `self.width`, the D of its output. Lists, cards, presets and checks are
    derived from the other class variables and methods; a third-party encoder may omit them.
    """

    name: ClassVar[str]  # set by `register_encoder`
    Config: ClassVar[type]
    wants: Literal["vectors", "maps"] = "vectors"
    sized: ClassVar[bool] = False
    width: int
    about: ClassVar[str] = ""  # one sentence without its full stop, for cards
    paper: ClassVar[Publication | None] = None
    recipes: ClassVar[dict[str, Options]] = {}  # training options of its papers, by name
    settings: ClassVar[dict[str, Options]] = {}  # options of its published models, by supervision
    pooling: ClassVar[str | None] = None  # how its own weakly supervised head pools segments

    @classmethod
    def gives(cls, config: Any) -> Gives:
        """Return what the encoding holds in addition to both streams.

        "fused": a fused stream; "similarity": the similarity of the two streams; "gate": which
        segments matter; "queries": both streams, gated, before their last interaction; "self": both
        streams of a pass without cross attention; "tokens": one token per class and stream;
        "levels": both streams at several levels.
        """
        return None

    @classmethod
    def own_head(cls, config: Any) -> str | None:
        """Return the form of the direct head that the paper defines; None: the default form."""
        return None

    @classmethod
    def unread(cls, config: Any) -> list[Rule]:
        """Return the rules of options that are read only in combination with certain others."""
        return []

    def self_only(self) -> AbstractContextManager[None]:
        """Return a context within which each stream is encoded alone, as far as that is possible.

        By default nothing changes: most encoders have no published form of this.
        """
        return nullcontext()

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        raise NotImplementedError


class Decoder(nn.Module):
    """Base class of all decoders: an `Encoding` in, a `Parse` out.

    A subclass takes keyword arguments only: `config` (its own dataclass), `width` (D of the
    encoding), `num_classes` (C) and `label_dim` (E). `needs_labels` says whether `forward` needs
    label embeddings [C, E]. Lists, cards, presets and checks are derived from the other class
    variables and methods; a third-party decoder may omit them.
    """

    name: ClassVar[str]  # set by `register_decoder`
    Config: ClassVar[type]
    needs_labels: bool = False
    about: ClassVar[str] = ""  # one sentence without its full stop, for cards
    closed: ClassVar[str] = ""  # why it finds only the classes that it was trained on
    paper: ClassVar[Publication | None] = None
    recipes: ClassVar[dict[str, Options]] = {}  # training options of its papers, by name
    fixed: ClassVar[dict[str, Options]] = {}  # options without a choice, by `Needs.streams`

    @classmethod
    def texts_as_wide(cls, config: Any) -> bool:
        """Return whether label embeddings must have the width of the encoding."""
        return False

    @classmethod
    def gives(cls, config: Any) -> Gives:
        """Return what the parse holds.

        "text scores": scores by class texts; "label scores": one distribution over all labels;
        "text distribution": the same, over the class texts;
        "pooled": a soft probability of the whole clip; "clip class": one class per clip, and the
        segments that show it; "uncertainty": how uncertain each video probability is; "token
        scores": which class each class token is.
        """
        return None

    @classmethod
    def encoder_options(cls, encoder: type[Encoder]) -> Options:
        """Return the options of an encoder that suit this decoder, before those of the user."""
        return {}

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the options that a task fixes or prefers, behind an encoder with its defaults."""
        return cls.fixed.get(needs.streams or "", {})

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return whether the decoder can score "background" as one more class beside the events."""
        return True

    @classmethod
    def check(
        cls, config: Any, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse options that do not fit a task and an encoder; return the rules of the others.

        Raises:
            UsageError: an option does not fit; names it, its value and what would be right.
        """
        streams = needs.streams or ""
        for name, right in cls.fixed.get(streams, {}).items():
            if (value := getattr(config, name)) != right:
                wanted = {"apart": "keeps the streams apart", "joint": "needs one joint stream"}
                raise UsageError(
                    f"decoder_config.{name} is {value!r}; {needs.asker} {wanted[streams]}: "
                    f"it must be {right!r}"
                )
        return []

    def read_labels(self, label_embeddings: Tensor) -> None:
        """Read the label embeddings [C, E] of a new model's classes, once, before any training."""

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; `label_embeddings` is [C, E] for decoders that need labels."""
        raise NotImplementedError


def encoder_of(model: nn.Module) -> Encoder:
    """Return the encoder of a model, which may be wrapped."""
    return next(part for part in model.modules() if isinstance(part, Encoder))


def may_give(given: Gives, name: str) -> bool:
    """Return whether a part gives this output, or does not declare its outputs."""
    return given is None or name in given


def at_least_single(values: Tensor) -> Tensor:
    """Cast half and bfloat16 to float32; leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@dataclass(kw_only=True)
class FeatureSpec:
    """The features that a model reads.

    `extractors` says how the features were made (recipe, weights and their checksums), as far as
    that is known; comparing two specs ignores it.

    Shape: audio [B, T, audio_dim]; visual [B, T, visual_dim], or [B, T, H, W, visual_dim] where
    `map_size` is (H, W); motion [B, T, motion_dim] where `motion_dim` is given.
    """

    audio_dim: int = 128
    visual_dim: int = 512
    motion_dim: int | None = None
    map_size: tuple[int, int] | None = None
    extractors: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        sizes(self, "audio_dim", "visual_dim", "motion_dim")
        if self.map_size is not None:
            height, width = self.map_size
            if not (1 <= height <= MAP_EDGE and 1 <= width <= MAP_EDGE):
                raise UsageError(
                    f"FeatureSpec.map_size is {self.map_size}; "
                    f"both must lie between 1 and {MAP_EDGE}"
                )
            self.map_size = (int(height), int(width))

    @property
    def positions(self) -> int:
        """The number of map positions P; 1 for a dataset of vectors."""
        return 1 if self.map_size is None else self.map_size[0] * self.map_size[1]
