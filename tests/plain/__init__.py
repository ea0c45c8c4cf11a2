"""The models in plain, eager code, which the fast ones are compared with and timed against."""
