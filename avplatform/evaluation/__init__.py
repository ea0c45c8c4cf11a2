"""Scores of models, and what a finished run leaves behind."""
