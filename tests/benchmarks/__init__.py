"""Tests of the program of speed benchmarks; none of them asserts a time."""
