"""Sinks that keep things: the small-data file and the capture."""

if __name__ != "ffb.writers":
    raise ImportError(f"import this package as 'ffb.writers', not {__name__!r}")
