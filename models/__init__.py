"""Models: stem, encoders, decoders, and `AVModel`, which joins them."""
