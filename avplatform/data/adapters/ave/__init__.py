"""AVE: 28 classes of events that are heard and seen, and background."""
