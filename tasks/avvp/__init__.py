"""Audio-visual video parsing on LLP."""

from avplatform.tasks.avvp.task import AVVP, AVVPConfig

__all__ = ["AVVP", "AVVPConfig"]
