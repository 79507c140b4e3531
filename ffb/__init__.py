"""ffb: every shot of an X-ray free-electron laser to a growing file and a page, from one path."""

from typing import Any

from ffb.feature import Axis, Feature, Image, Value, Vector, Waveform
from ffb.reduce import Area, Tile, reducer, tile_reducer

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Give ``ffb.open`` of :mod:`ffb.reading.opening`, and load HDF5 only where a file is read."""
    if name == "open":
        from ffb.reading.opening import open as open_file

        return open_file
    raise AttributeError(f"module 'ffb' has no attribute {name!r}")


__all__ = [
    "Area",
    "Axis",
    "Feature",
    "Image",
    "Tile",
    "Value",
    "Vector",
    "Waveform",
    "__version__",
    "reducer",
    "tile_reducer",
]
