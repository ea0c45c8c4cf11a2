"""Label texts: their embeddings, labels given by a user, and classes held out of training."""
