"""ffb: every shot of an X-ray free-electron laser to a growing file and a page, from one path."""

__version__ = "0.1.0"
