"""AVE: events of 28 classes that are audible and visible at once, and background."""
