"""What there is: encoders, decoders, tasks, their combinations, costs and published figures."""
