"""Decoders by name. A third party adds its own with `register_decoder`, without touching this tree."""

from __future__ import annotations

from avplatform.models.checks import check_part
from avplatform.models.contracts import Decoder
from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL

DECODERS: dict[str, type[Decoder]] = {"leap": LEAP, "dch": DCH, "mmil": MMIL}


def register_decoder(name: str, decoder: type[Decoder]) -> None:
    """Make `decoder` available under `name` (its `Config` dataclass then carries `_type = name` in saved models).

    Raises:
        UsageError: it lacks something that every decoder defines.
    """
    check_part(decoder, Decoder, "Config", "forward")
    decoder.Config._type = name  # type: ignore[attr-defined]
    DECODERS[name] = decoder


for _name, _decoder in list(DECODERS.items()):
    register_decoder(_name, _decoder)
