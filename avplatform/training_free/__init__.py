"""A model before any training: CLIP and CLAP compare what is seen and heard with label texts."""
