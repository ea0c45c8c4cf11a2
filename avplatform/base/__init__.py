"""Tools that every package may use: console, files, locks, .npy files, figures, processes."""
