"""Configuration of a run: options, recipes, presets, and the task and model built from them."""
