"""A web page on which anyone tries a model: a video goes in, its timeline comes out."""
