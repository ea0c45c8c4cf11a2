"""Refuses options that were changed and that nothing would read in the chosen combination."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from avplatform.models.errors import UsageError

Rule = tuple[str, bool, str]
"""An option, whether something reads it here, and what it is for."""


def refuse_unread(config: Any, rules: Iterable[Rule], *, group: str) -> None:
    """Raise UsageError for an option that is not at its default although nothing reads it.

    Args:
        config: the dataclass that holds the options.
        rules: which of its options are read, and what they are for.
        group: where the options stand in a run's configuration: encoder_config, decoder_config or task_config.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name, read, purpose in rules:
        value = getattr(config, name)
        if not read and value != defaults[name]:
            raise UsageError(
                f"{group}.{name} is {value!r}, but nothing would read it here: it is for {purpose}; leave it at "
                f"its default, {defaults[name]!r}"
            )


def check_parts(encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
    """Refuse options of the built-in encoders and decoders that have no effect, whatever the task."""
    if encoder == "ave":
        dmrn = encoder_config.variant == "dmrn"
        rules = [
            ("residual_blocks", dmrn, "variant dmrn"),
            ("official_init", not dmrn, "variant att"),
        ]
        refuse_unread(encoder_config, rules, group="encoder_config")
    if decoder == "dch":
        form = decoder_config.form
        rules = [
            (
                "weighting",
                form in ("psp", "cmbs") or encoder in ("psp", "cmbs"),
                "the forms psp and cmbs",
            ),
            ("gamma", form == "cmbs", "the form cmbs"),
            ("official_init", form != "cmbs", "the other forms than cmbs"),
        ]
        refuse_unread(decoder_config, rules, group="decoder_config")
    if decoder == "leap":
        fused = decoder_config.streams == "fused"
        rules = [
            (
                "attention_dropout",
                decoder_config.form == "released",
                "the form 'released'; the equations have none",
            ),
            ("shared_video_classifier", not fused, "several streams"),
        ]
        refuse_unread(decoder_config, rules, group="decoder_config")
        if fused and decoder_config.combine in ("product", "or"):
            raise UsageError(
                f"decoder_config.combine is '{decoder_config.combine}', but streams 'fused' is one stream; leave it out"
            )
        if fused and decoder_config.reads == "queries":
            raise UsageError(
                "decoder_config.reads is 'queries', but the fused stream has none; use streams both or all"
            )
