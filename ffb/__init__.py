"""ffb: every shot of an X-ray free-electron laser to a growing file and a page, from one path."""

from ffb.reduce import (
    Area,
    Feature,
    Image,
    Tile,
    Value,
    Vector,
    Waveform,
    reducer,
    tile_reducer,
)

__version__ = "0.1.0"

__all__ = [
    "Area",
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
