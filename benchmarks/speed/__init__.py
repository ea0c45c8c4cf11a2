"""Speed benchmarks: each keeps its plain baseline; `python -m benchmarks` times them."""
