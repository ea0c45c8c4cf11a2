"""Audio-visual event localization on AVE."""

from avplatform.tasks.avel.config import AVELConfig
from avplatform.tasks.avel.task import AVEL

__all__ = ["AVEL", "AVELConfig"]
