"""What is known of the cells of a task: which are published and where, their presets, and what each computes, in words.

Each task fills this in, in `tasks/X/cells.py`. Which paper defines which cell stands there because only a task may know
encoders and decoders, which know no task. Lists, pages, presets and conversions are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from avplatform.models.contracts import Decoder, Encoder, Options, Publication

EncoderType: TypeAlias = type[Encoder]
DecoderType: TypeAlias = type[Decoder]


class Preset(NamedTuple):
    """A recipe of a cell under the name `<encoder>-<decoder>-<task>[-<supervision>][-<suffix>]`.

    `options` go over the recipe, which is the one called `recipe` among those of `by` (default: the encoder's, of this
    supervision if there is one). `system` is what the name begins with, for a system that is not called as its encoder.
    `checkpoint` names the published model that has these losses and decisions.
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
    """What papers say about a cell, how our defaults differ, and the preset that is exact."""

    publications: tuple[Publication, ...]
    default: str
    exact: str | None


@dataclass(kw_only=True, frozen=True)
class Cells:
    """Facts about the cells of one task, as far as papers and this platform define them; texts are for people."""

    title: str = ""  # of the task's part of docs/cells.md; empty: it has none
    figures: str = ""  # what the published figures are
    measured: str = ""  # on what features costs are counted
    presets: tuple[Preset, ...] = ()
    published: dict[tuple[EncoderType, DecoderType, str], Published] = field(default_factory=dict)
    mentioned: dict[DecoderType, str] = field(default_factory=dict)  # figures without setting, code
    ours: dict[DecoderType, str] = field(default_factory=dict)  # what cells without a paper are
    rules: dict[tuple[DecoderType, str], tuple[str, str]] = field(default_factory=dict)
    """Loss and decision by decoder and supervision, with the task's default options."""
    heads: dict[tuple[EncoderType, str], tuple[str, str]] = field(default_factory=dict)
    """The same of encoders that brought a head of their own, for the decoder `headed`."""
    headed: DecoderType | None = None
    vectors: str = ""  # what an encoder that wants vectors reads
    maps: str = ""  # what one that wants maps reads
    several_models: str = ""  # which model of an encoder that was published as several
    note: str = ""  # on the page, behind the cells that are ours
    rules_note: str = ""  # on the page, behind losses and decisions

    def reads(self, encoder: EncoderType) -> str:
        """Return what an encoder gets from the task's features."""
        text = self.vectors if encoder.wants == "vectors" else self.maps
        return text + (self.several_models if encoder.settings else "")

    def rule(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> tuple[str, str]:
        """Return loss and decision of a cell; parts from outside get the task's rules for what they predict."""
        if decoder is self.headed and (encoder, supervision) in self.heads:
            return self.heads[encoder, supervision]
        unknown = "by what the decoder predicts"
        return self.rules.get((decoder, supervision), (unknown, unknown))

    def defined(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> str:
        """Return what a cell without a paper is."""
        return self.ours.get(decoder, "registered from outside")
