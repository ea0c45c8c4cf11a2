"""Audio-visual event localization on AVE."""

from tasks.avel.task import AVEL, AVELConfig

__all__ = ["AVEL", "AVELConfig"]
