"""Datasets: what their authors published and how it becomes stores, one folder for each."""
