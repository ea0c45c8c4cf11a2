"""What a task means: labels, losses, decisions and metrics."""
