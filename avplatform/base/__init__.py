"""What every room may use: console, files, locks, arrays on disk, drawing, the machine and its processes."""
