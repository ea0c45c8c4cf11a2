"""LLP: clips of 25 classes, with separate labels for audible and visible events."""
