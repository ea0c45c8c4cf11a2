"""What a run leaves in its folder: results, predictions and pictures."""
