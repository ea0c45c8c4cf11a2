"""Models on the Hugging Face Hub: finding, converting and pushing them, and their cards."""
