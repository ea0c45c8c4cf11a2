"""Optimiser, step, loop, checkpoints and the run folder."""
