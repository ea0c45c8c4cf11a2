"""Readers of third-party checkpoints, which never run pickled code."""
