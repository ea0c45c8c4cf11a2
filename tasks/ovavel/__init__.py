"""Open-vocabulary audio-visual event localization."""

from avplatform.tasks.avel.config import BACKGROUND
from avplatform.tasks.ovavel.config import OVAVELConfig
from avplatform.tasks.ovavel.task import OVAVEL

__all__ = ["BACKGROUND", "OVAVEL", "OVAVELConfig"]
