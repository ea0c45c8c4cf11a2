"""Audio-visual video parsing."""

from avplatform.tasks.avvp.task import AVVP, AVVPConfig

__all__ = ["AVVP", "AVVPConfig"]
