"""Label texts to vectors: GloVe, text encoders, and files of label embeddings."""
