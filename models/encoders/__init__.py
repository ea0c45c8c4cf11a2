"""Encoders by name; third parties add their own with `register_encoder`, from their own code."""

from __future__ import annotations

from avplatform.models.checks import check_part
from avplatform.models.contracts import Encoder
from avplatform.models.encoders.ave import AVE
from avplatform.models.encoders.cmbs import CMBS
from avplatform.models.encoders.dhhn import DHHN
from avplatform.models.encoders.han import HAN
from avplatform.models.encoders.identity import Identity
from avplatform.models.encoders.mgn import MGN
from avplatform.models.encoders.mmpyr import MMPyr
from avplatform.models.encoders.psp import PSP
from avplatform.models.encoders.temporal import Temporal

ENCODERS: dict[str, type[Encoder]] = {}


def register_encoder(name: str, encoder: type[Encoder]) -> None:
    """Make `encoder` available under `name`; saved models keep it as `_type` of the config.

    Raises:
        UsageError: the class does not define what every encoder must define.
    """
    check_part(encoder, Encoder, "Config", "forward")
    encoder.name = encoder.Config._type = name  # type: ignore[attr-defined]
    ENCODERS[name] = encoder


for _encoder in (HAN, MMPyr, MGN, DHHN, AVE, PSP, CMBS, Temporal, Identity):
    register_encoder(_encoder.name, _encoder)
