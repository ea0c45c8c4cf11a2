"""The catalogue: tasks, encoders, decoders, their combinations, costs and published figures."""
