"""Work on many machines: items that a Ray cluster shares out, each done in a child process."""
