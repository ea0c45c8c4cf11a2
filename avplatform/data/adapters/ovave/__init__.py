"""OV-AVEBench: events of 67 classes, of which 21 have no training clip, and background."""
