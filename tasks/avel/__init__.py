"""Audio-visual event localization on AVE."""

from tasks.avel.config import AVELConfig
from tasks.avel.task import AVEL

__all__ = ["AVEL", "AVELConfig"]
