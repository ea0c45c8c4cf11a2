"""Segment pseudo-labels by VALOR's procedure, and their score against dense annotations."""
