"""The files in the folder of a run: results, predictions and plots."""
