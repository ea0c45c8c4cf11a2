"""Audio-visual event localization."""

from avplatform.tasks.avel.config import AVELConfig
from avplatform.tasks.avel.task import AVEL

__all__ = ["AVEL", "AVELConfig"]
