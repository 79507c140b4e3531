"""From configured reducers to the few compiled loops that run them all."""
