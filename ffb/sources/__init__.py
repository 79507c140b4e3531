"""Where shots come from; the names, epochs and exceptions of psana end here."""
