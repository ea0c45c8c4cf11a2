"""A user's own events of any classes: a table, or the files of an annotation program."""
