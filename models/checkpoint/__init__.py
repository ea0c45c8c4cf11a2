"""Checkpoints of others, read without running anything that is pickled in them."""
