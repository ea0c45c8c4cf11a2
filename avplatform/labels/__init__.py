"""Texts of labels: their embeddings, labels that a user gives, and classes held out of training."""
