"""One module per kind of plot: each a function from a view's snapshot to a figure."""
