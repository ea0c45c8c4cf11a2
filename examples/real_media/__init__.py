"""An end-to-end run on real photographs and sounds, composed into clips with known events.

The photographs and sounds come from Debian packages. The clips are composed, but their pictures and
sounds are real, and it is known which event is heard and seen in which second. `fetch` gets the
packages, `compose` writes the clips, and `run` extracts, trains, scores and draws. There are 1 to
10 sources per class: this tests the whole way from a video to a timeline and is not a benchmark.
"""
