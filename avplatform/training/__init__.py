"""Training: optimiser, step, loop, checkpoints, trackers and the report of a finished run."""
