"""Reproduce published tables: the plan, its runs, and the page that compares the figures."""
