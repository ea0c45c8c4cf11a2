"""The code blocks of the pages: every one is run here, or named with the reason why not."""
