"""A trained network as one file, for other runtimes: written, checked, described, and run."""
