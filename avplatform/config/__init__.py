"""What a run is told: options, recipes, presets, and the task and the model built from them."""
