"""LLP: 25 classes, what is heard and what is seen labelled apart."""
