"""Facts about the cells of a task: the papers behind them, their presets, and what each computes.

A cell is a combination of an encoder, a decoder and a supervision. Each task fills in its facts in
`tasks/X/cells.py`, because a task may know encoders and decoders, but they know no task. Lists,
pages, presets and conversions are derived from these facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from avplatform.models.contracts import Decoder, Encoder, Options, Publication

EncoderType: TypeAlias = type[Encoder]
DecoderType: TypeAlias = type[Decoder]


class Preset(NamedTuple):
    """A preset of a cell, named `<encoder>-<decoder>-<task>[-<supervision>][-<suffix>]`.

    Args:
        encoder: the encoder of the cell.
        decoder: the decoder of the cell.
        supervision: the supervision of the cell.
        options: options that override those of the recipe.
        by: the part whose `recipes` hold the recipe; default: the encoder.
        recipe: the name of the recipe; default: that of `by` for this supervision if there is one,
            else the one named like `by`.
        suffix: the end of the preset's name.
        system: the start of the preset's name, for a system that is not named after its encoder.
        checkpoint: the name of the published model that has these losses and decisions.
    """

    encoder: EncoderType
    decoder: DecoderType
    supervision: str
    options: Options = {}
    by: EncoderType | DecoderType | None = None
    recipe: str = ""
    suffix: str = ""
    system: str = ""
    checkpoint: str = ""

    @property
    def trained(self) -> Options:
        """The options of the recipe."""
        by = self.by or self.encoder
        own = f"{by.name}-{self.supervision}"
        return by.recipes[self.recipe or (own if own in by.recipes else by.name)]


class Published(NamedTuple):
    """The papers behind a cell, how our defaults differ, and the preset that reproduces them."""

    publications: tuple[Publication, ...]
    default: str
    exact: str | None


@dataclass(kw_only=True, frozen=True)
class Cells:
    """Facts about the cells of one task; the texts are written for docs/cells.md."""

    title: str = ""  # the task's heading in docs/cells.md; empty: the page leaves the task out
    figures: str = ""  # which figures the papers give
    measured: str = ""  # the features on which costs are counted
    presets: tuple[Preset, ...] = ()
    published: dict[tuple[EncoderType, DecoderType, str], Published] = field(default_factory=dict)
    mentioned: dict[DecoderType, str] = field(default_factory=dict)
    """What papers report of a decoder on this task without telling the setting."""
    ours: dict[DecoderType, str] = field(default_factory=dict)
    """How we define the cells of a decoder that no paper describes."""
    rules: dict[tuple[DecoderType, str], tuple[str, str]] = field(default_factory=dict)
    """Loss and decision by decoder and supervision, with the task's default options."""
    heads: dict[tuple[EncoderType, str], tuple[str, str]] = field(default_factory=dict)
    """The same for encoders with a head of their own, which the decoder `headed` builds."""
    headed: DecoderType | None = None
    vectors: str = ""  # what an encoder that wants vectors reads
    maps: str = ""  # what an encoder that wants maps reads
    several_models: str = ""  # which model is used of an encoder that was published as several
    note: str = ""  # shown on the page after the cells that are ours
    rules_note: str = ""  # shown on the page after losses and decisions

    def reads(self, encoder: EncoderType) -> str:
        """Return what an encoder reads of the task's features."""
        text = self.vectors if encoder.wants == "vectors" else self.maps
        if encoder.wants == "vectors" and getattr(encoder.Config(), "width", 0) is None:
            return "the features as they are, one vector per segment"
        return text + (self.several_models if encoder.settings else "")

    def rule(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> tuple[str, str]:
        """Return loss and decision of a cell; for a third-party part these depend on its output."""
        if decoder is self.headed and (encoder, supervision) in self.heads:
            return self.heads[encoder, supervision]
        unknown = "by what the decoder predicts"
        return self.rules.get((decoder, supervision), (unknown, unknown))

    def defined(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> str:
        """Return the definition of a cell without a paper."""
        return self.ours.get(decoder, "registered from outside")
