"""Code that a reader can run with transformers alone, and that gives the numbers on the screen. One module a page."""
