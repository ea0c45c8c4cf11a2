"""Audio-visual video parsing on LLP."""

from tasks.avvp.task import AVVP, AVVPConfig

__all__ = ["AVVP", "AVVPConfig"]
