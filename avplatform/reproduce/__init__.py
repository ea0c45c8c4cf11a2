"""Published tables trained again: the plan, its runs, and the page that compares the figures."""
