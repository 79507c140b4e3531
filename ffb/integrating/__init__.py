"""Integrating detectors: what each of their exposures saw, as a function of committed rows."""
