"""Audio-visual video parsing."""

from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.task import AVVP

__all__ = ["AVVP", "AVVPConfig"]
