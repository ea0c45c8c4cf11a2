"""Scores of models: evaluation, intervals, calibration, robustness and comparison of runs."""
