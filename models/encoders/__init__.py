"""Encoders by name. A third party adds its own with `register_encoder`, without touching this tree."""

from __future__ import annotations

from avplatform.models.checks import check_part
from avplatform.models.contracts import Encoder
from avplatform.models.encoders.ave import AVE
from avplatform.models.encoders.cmbs import CMBS
from avplatform.models.encoders.han import HAN
from avplatform.models.encoders.mmpyr import MMPyr
from avplatform.models.encoders.psp import PSP

ENCODERS: dict[str, type[Encoder]] = {}


def register_encoder(name: str, encoder: type[Encoder]) -> None:
    """Make `encoder` available under `name` (its `Config` dataclass then carries `_type = name` in saved models).

    Raises:
        UsageError: it lacks something that every encoder defines.
    """
    check_part(encoder, Encoder, "Config", "forward")
    encoder.name = encoder.Config._type = name  # type: ignore[attr-defined]
    ENCODERS[name] = encoder


for _encoder in (HAN, MMPyr, AVE, PSP, CMBS):
    register_encoder(_encoder.name, _encoder)
