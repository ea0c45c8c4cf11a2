"""What flows between stem, encoder, decoder and task.

Axes everywhere: B clips, T segments (one second each in LLP and AVE), C classes, D model width, P map positions,
E label-embedding width. All tensors are batch-first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from avplatform.models.checks import MAP_EDGE, sizes
from avplatform.models.errors import UsageError

STREAMS = ("audio", "visual", "av")
Gives = frozenset[str] | None
"""Names of what a part gives beside what every part does; None: it does not say, so it may give anything."""
Rule = tuple[str, bool, str]
"""An option, whether something reads it here, and what it is for."""
Options = dict[str, Any]
"""Options of a run, nested as in a YAML file."""


@dataclass(kw_only=True, frozen=True)
class Publication:
    """A paper: its short name, venue and authors, whether they released code, and its BibTeX entry."""

    paper: str
    venue: str
    authors: str = ""
    citation: str = ""
    code: bool = True

    def __str__(self) -> str:
        return f"{self.paper} ({self.venue}){'' if self.code else ', no code'}"


@dataclass(kw_only=True, frozen=True)
class Needs:
    """What a task reads of a decoder's prediction.

    `streams`: "apart" for audio and visual segments, "joint" for audio-visual ones. `logits` and `modalities` say why the
    joint stream must hold logits and why both streams must be there beside it, `no_relevance` why no relevance per segment
    is read, all as the end of a message, and empty where it is not so. `asker` is the task's name, for messages.
    """

    asker: str
    streams: Literal["apart", "joint"] | None
    supervision: str
    logits: str = ""
    modalities: str = ""
    no_relevance: str = ""


@dataclass
class Encoding:
    """What an encoder makes of the two feature streams.

    Shape: audio, visual and fused are [B, T, D]; `aux` holds named extras (spatial_attention [B, T, P], ...).
    """

    audio: Tensor
    visual: Tensor
    fused: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Prediction:
    """Scores of one stream, tagged with what they are.

    `kind` is "logit" or "probability"; `activation` is the function that turns its logits into probabilities:
    "sigmoid" (classes are independent) or "softmax" over the last axis (classes exclude each other).

    Shape: values are [B, T, C] for segments and [B, C] for videos.
    """

    values: Tensor
    kind: Literal["logit", "probability"] = "logit"
    activation: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def probability(self) -> Tensor:
        """Scores as probabilities, in at least single precision."""
        values = at_least_single(self.values)
        if self.kind == "probability":
            return values
        return values.sigmoid() if self.activation == "sigmoid" else values.softmax(dim=-1)

    @property
    def logit(self) -> Tensor:
        """Scores as logits, in at least single precision.

        Raises:
            ValueError: the model returned probabilities; the logits cannot be had back from them exactly.
        """
        if self.kind != "logit":
            raise ValueError("this prediction holds probabilities, not logits")
        return at_least_single(self.values)


@dataclass
class StreamPredictions:
    """One prediction per stream; a stream that a cell does not predict is None."""

    audio: Prediction | None = None
    visual: Prediction | None = None
    av: Prediction | None = None


@dataclass
class Parse:
    """What a decoder says about a clip, per segment and for the whole video.

    Shape: segment values [B, T, C], video values [B, C]; attention [B, stream, C, T] with streams in the order
    audio, visual; relevance [B, T].
    """

    segment: StreamPredictions = field(default_factory=StreamPredictions)
    video: StreamPredictions = field(default_factory=StreamPredictions)
    attention: Tensor | None = None
    relevance: Prediction | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)
    queried_by_labels: bool = False  # LEAP: segments and video are scored by class texts


class Output(NamedTuple):
    """What `AVModel` returns: the parse, and the encoding that it was made from (losses on features need it)."""

    parse: Parse
    encoding: Encoding


class Encoder(nn.Module):
    """Base of all encoders: two feature streams in, an `Encoding` out.

    A subclass sets `wants` and takes keyword arguments only: `config` (its own dataclass), `audio_dim`,
    `visual_dim` and `positions` (P, the number of map positions, 1 for vectors). The stem gives it

    * wants = "vectors": audio [B, T, config.width] and visual [B, T, config.width], already projected;
    * wants = "maps": the raw audio vectors [B, T, audio_dim] and a map [B, T, P, visual_dim] (P = 1 for datasets of
      vectors).

    It must set `self.width`, the D of what it returns. The other class variables are facts that lists, cards, presets and
    checks are made from; an encoder from outside may leave them out.
    """

    name: ClassVar[str]  # set by `register_encoder`
    Config: ClassVar[type]
    wants: Literal["vectors", "maps"] = "vectors"
    width: int
    about: ClassVar[str] = ""  # one sentence without its full stop, for cards
    paper: ClassVar[Publication | None] = None
    recipes: ClassVar[dict[str, Options]] = {}  # how its papers trained, by name
    settings: ClassVar[dict[str, Options]] = {}  # options of its published models, by supervision
    pooling: ClassVar[str | None] = None  # how its own weakly supervised head pools segments

    @classmethod
    def gives(cls, config: Any) -> Gives:
        """Return what the encoding holds beside both streams.

        "fused": a fused stream; "similarity": that of the pair of streams; "gate": which segments matter; "queries": both
        streams before their last interaction, gated.
        """
        return None

    @classmethod
    def own_head(cls, config: Any) -> str | None:
        """Return the form of the direct classification head that its paper defines, where it differs from the default."""
        return None

    @classmethod
    def unread(cls, config: Any) -> list[Rule]:
        """Return which options are read only beside certain others."""
        return []

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        raise NotImplementedError


class Decoder(nn.Module):
    """Base of all decoders: an `Encoding` in, a `Parse` out.

    A subclass takes keyword arguments only: `config` (its own dataclass), `width` (D of the encoding), `num_classes`
    (C) and `label_dim` (E). `needs_labels` says whether forward needs label embeddings [C, E]. The other class variables
    and methods are facts that lists, cards, presets and checks are made from; a decoder from outside may leave them out.
    """

    name: ClassVar[str]  # set by `register_decoder`
    Config: ClassVar[type]
    needs_labels: bool = False
    about: ClassVar[str] = ""  # one sentence without its full stop, for cards
    closed: ClassVar[str] = ""  # why it can find no other classes than those that it was trained on
    paper: ClassVar[Publication | None] = None
    recipes: ClassVar[dict[str, Options]] = {}  # how its papers trained, by name
    fixed: ClassVar[
        dict[str, Options]
    ] = {}  # options that tasks fix, by the streams that they need

    @classmethod
    def gives(cls, config: Any) -> Gives:
        """Return what the parse holds.

        "text scores": scores by class texts; "label scores": one distribution over all labels; "pooled": a soft probability
        of the whole clip; "clip class": one class per clip, and which segments it is in.
        """
        return None

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the options that a task fixes or prefers behind an encoder with its default options."""
        return cls.fixed.get(needs.streams or "", {})

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Whether "background" can be one of the classes that exclude each other."""
        return True

    @classmethod
    def check(
        cls, config: Any, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse options that do not go with a task and an encoder; return which options are read only beside others.

        Raises:
            UsageError: naming the option, its value and what would be right.
        """
        streams = needs.streams or ""
        for name, right in cls.fixed.get(streams, {}).items():
            if (value := getattr(config, name)) != right:
                wanted = {"apart": "keeps the streams apart", "joint": "needs one joint stream"}
                raise UsageError(
                    f"decoder_config.{name} is {value!r}; {needs.asker} {wanted[streams]}: it must be {right!r}"
                )
        return []

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; `label_embeddings` is [C, E] for decoders that need labels."""
        raise NotImplementedError


def may_give(given: Gives, name: str) -> bool:
    """Whether a part gives something, or does not say what it gives."""
    return given is None or name in given


def at_least_single(values: Tensor) -> Tensor:
    """Cast half and bfloat16 to float32; leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@dataclass(kw_only=True)
class FeatureSpec:
    """The features of a dataset, as far as a model must know them.

    Shape: audio [B, T, audio_dim]; visual [B, T, visual_dim], or [B, T, H, W, visual_dim] where `map_size` is (H, W);
    motion [B, T, motion_dim] where there is one. `extractors` says how the features were made (recipe, weights and their
    checksums), as far as it is known; it does not count when specs are compared.
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
                    f"FeatureSpec.map_size is {self.map_size}; both must lie between 1 and {MAP_EDGE}"
                )
            self.map_size = (int(height), int(width))

    @property
    def positions(self) -> int:
        """Number of map positions P; 1 for a dataset of vectors."""
        return 1 if self.map_size is None else self.map_size[0] * self.map_size[1]
