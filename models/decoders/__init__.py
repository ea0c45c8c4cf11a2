"""Decoders by name; third parties add their own with `register_decoder`, from their own code."""

from __future__ import annotations

from avplatform.models.checks import check_part
from avplatform.models.contracts import Decoder
from avplatform.models.decoders.cmpae import Evidence
from avplatform.models.decoders.cosine import CosineDecoder
from avplatform.models.decoders.cvcms import ClassTokens
from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.group import GroupingDecoder
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL

DECODERS: dict[str, type[Decoder]] = {}


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Make `decoder` available under `name`; saved models keep it as `_type` of the config.

    Raises:
        UsageError: the class does not define what every decoder must define.
    """
    check_part(decoder, Decoder, "Config", "forward")
    decoder.name = decoder.Config._type = name  # type: ignore[attr-defined]
    DECODERS[name] = decoder


def label_decoders() -> str:
    """Return the names of the decoders that query with label texts, as a text for messages."""
    return " or ".join(name for name, kind in DECODERS.items() if kind.needs_labels)


for _decoder in (LEAP, DCH, MMIL, ClassTokens, Evidence, GroupingDecoder, CosineDecoder):
    register_decoder(_decoder.name, _decoder)
