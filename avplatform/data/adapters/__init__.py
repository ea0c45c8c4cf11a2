"""Datasets: what their authors published and how it becomes a store, one folder per dataset."""
