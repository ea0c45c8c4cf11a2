"""Faults of official files and stores, planted in small trees for import and verification."""
