"""Checks that refuse options which were changed but are not read in the chosen combination."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from avplatform.models.contracts import Decoder, Encoder, Needs, Rule
from avplatform.models.errors import UsageError


def refuse_unread(config: Any, rules: Iterable[Rule], *, group: str) -> None:
    """Raise UsageError for an option that is not at its default although it is not read.

    Args:
        config: the dataclass that holds the options.
        rules: which of its options are read, and what they are for.
        group: the place of the options in the configuration of a run: encoder_config,
            decoder_config or task_config.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name, read, purpose in rules:
        value = getattr(config, name)
        if not read and value != defaults[name]:
            raise UsageError(
                f"{group}.{name} is {value!r}, but nothing would read it here: "
                f"it is for {purpose}; leave it at its default, {defaults[name]!r}"
            )


def check_parts(
    encoder: type[Encoder],
    decoder: type[Decoder],
    encoder_config: Any,
    decoder_config: Any,
    needs: Needs,
) -> None:
    """Refuse options of an encoder and a decoder that do not fit together or have no effect.

    Raises:
        UsageError: an option is refused; names it, its value and what would be right.
    """
    rules = decoder.check(decoder_config, needs, encoder, encoder_config)
    refuse_unread(encoder_config, encoder.unread(encoder_config), group="encoder_config")
    refuse_unread(decoder_config, rules, group="decoder_config")
