"""Tasks: the meaning of labels, losses, decisions and metrics."""
