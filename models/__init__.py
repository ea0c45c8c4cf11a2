"""What computes: stem, encoders, decoders and the model that joins them."""
