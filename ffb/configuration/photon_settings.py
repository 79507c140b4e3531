"""The table of an input whose frames are turned into photons before its reducers see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ffb.configuration.by_run import ForRuns
from ffb.configuration.settings import Count, List

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Level = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: Settings that only some ways of counting know, and those ways.
_ONLY = {
    "edges": ("pixels", "droplets"),
    "fraction": ("pairs",),
    "threshold": ("pairs", "droplets"),
    "threshold_low": ("droplets",),
    "min_sum": ("droplets",),
    "max_npix": ("droplets",),
    "in_noise": ("droplets",),
}


class PhotonConfig(ForRuns):
    """A photon map: whole photons in each pixel of a calibrated frame.

    Reducers and sums of the input take the map as they would take the frame. All levels are in
    calibrated units. A pixel whose photons cannot be known is NaN: one above `pixel_max` or of
    more than a million photons, and those of droplets of more than `max_npix` pixels.
    """

    photon: Positive
    """Calibrated value of one photon."""
    by: Literal["pixels", "pairs", "droplets"] = "droplets"
    """"pixels": each for itself. "pairs": charge shared by two, as the reducer `photon_counting`
    counts them. "droplets": as `photons` divides them; each is in the pixel closest to it."""
    edges: List[Positive] | None = None
    """Least values of 1, 2, ... photons, of a pixel or a droplet; beyond the last they go on in
    steps of `photon`. Without them they lie halfway between photons."""
    pixel_max: Positive | None = None
    """Pixels above it are not valid."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Two remainders that sum up to this part of a photon are one, if the larger is half of it."""
    threshold: Level | None = None
    """Least value of a seed of droplets, half a photon if left out; of pairs that of a pixel."""
    threshold_low: Positive | None = None
    """Least value of a pixel beside a seed; without it `threshold`."""
    min_sum: Level = 0.0
    """Least sum of a droplet."""
    max_npix: Count = 200
    """Most pixels of a droplet that is divided: the time for it grows with their square."""
    in_noise: bool = False
    """Whether `threshold` and `threshold_low` are in units of each pixel's noise."""

    @model_validator(mode="after")
    def _known_to_its_way(self) -> Self:
        given = [f for f in _ONLY if f in self.model_fields_set and self.by not in _ONLY[f]]
        if given:
            raise ValueError(f'by = "{self.by}" knows no {", ".join(given)}; leave out')
        return self


def unknown(data: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Names in a configuration, plain data, that photons are made of and no input has; inputs."""
    inputs, photons = data.get("inputs"), data.get("photons")
    known = list(inputs) if isinstance(inputs, Mapping) else []
    for name in photons if isinstance(photons, Mapping) else ():
        if name not in known:
            yield name, known
