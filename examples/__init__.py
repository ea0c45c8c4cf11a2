"""Whole examples: programs that use the platform from outside."""
