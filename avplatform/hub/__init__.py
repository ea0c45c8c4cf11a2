"""Models and the Hugging Face Hub: finding, converting and pushing models, and their cards."""
