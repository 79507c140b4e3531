"""Calibration and geometry of an area detector in a run, as its configuration asks for them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ffb.config import Config, ConfigError
from ffb.configuration.by_run import for_run
from ffb.configuration.calibration_settings import CalibrationConfig, calibration_of_run
from ffb.health import duration
from ffb.messaging.arrays import LARGE, RunArray
from ffb.reduce import Area, Calibration
from ffb.shot import Input, time_of
from ffb.source import Constants, Run


class Detector(NamedTuple):
    """An area detector under its input's name; ``ids`` name its constants.

    ``small`` are those of its constants that are small enough for the file, ``large`` the names
    that the others would have there.
    """

    input: str
    calibration: Calibration
    area: Area
    ids: Mapping[str, str]
    small: tuple[RunArray, ...] = ()
    large: tuple[str, ...] = ()

    @property
    def arrays(self) -> list[RunArray]:
        """What a file should hold of it, the most wanted first: mask, positions, constants."""
        d = self.area.detector
        made = [RunArray(f"{d}/mask", self.area.mask, "1", f"1 for good pixels of {d}")]
        if self.area.xyz is not None:
            axes = zip("xyz", self.area.xyz, strict=True)
            made += [RunArray(f"{d}/{k}", v, "um", f"{k} of the pixels of {d}") for k, v in axes]
        return [*made, *self.small]


def _sorted_out(known: Constants | None) -> tuple[tuple[RunArray, ...], tuple[str, ...]]:
    """Constants for ``Detector.small`` and ``large``; the large ones need not be kept."""
    if known is None:
        return (), ()
    d = known.detector
    every = (
        ("ped", known.pedestals, "ADU", "pedestals"),
        ("rms", known.rms, "ADU", "rms of the dark"),
        ("gain", known.gain, "ADU/keV", "gain"),
        ("offset", known.offset, "ADU", "offset"),
        ("status", known.status, "1", "state of pixels, 0 is good,"),
        ("status_extra", known.status_extra, "1", "more of the state of pixels, 0 is good,"),
    )
    there = [
        RunArray(f"{d}/{k}", values, unit, f"{doc} by gain range of {d}")
        for k, values, unit, doc in every
        if values is not None
    ]
    large = tuple(a.name for a in there if a.values.nbytes > LARGE)
    return tuple(a for a in there if a.name not in large), large


def _ages(detector: str, since: Mapping[str, int], began: int) -> list[str]:
    """A sentence on how old constants were when the run began, where that is known."""
    told: dict[str, list[str]] = {}  # those that came together are named together
    for name, at in sorted(since.items()) if began else ():
        age = (time_of(began) - at) / 1e9
        when = f"{duration(abs(age))} {'before' if age >= 0 else 'after'} the run began"
        told.setdefault(when, []).append(name)
    made = [f"{', '.join(names)} {when}" for when, names in told.items()]
    return [f"{detector}: constants were saved: {'; '.join(made)}"] if made else []


def calibrated(config: Config, run: Run, name: str, given: Input) -> tuple[Detector, list[str]]:
    """The detector of the area input ``name``, and notes on its constants.

    Raises ``LookupError``, ``ValueError`` and ``OSError`` with a sentence.
    """
    source = config.inputs[name].source.detector
    table, shape = calibration_of_run(config.calibration.get(source), run.info.run), given.shape
    if len(shape) != 3:
        raise ValueError(f"{source} has frames of shape {shape}, not (segments, rows, columns)")
    geometry = str(config.locate(table.geometry)) if table and table.geometry else ""
    if table and table.constants == "none":
        return _uncalibrated(config, run, name, given, table, geometry)
    store = not (table and table.pedestals)
    constants = run.constants(source, geometry, store)
    calibrations = importlib.import_module("ffb.reducers.calibration")
    made = calibrations.make(constants, table, config.locate, given)
    xyz = made.known.xyz  # which may not fit, and be left out
    known = (xyz, made.unit, None if xyz is None else constants.corner, made.noise)
    area = Area(source, shape, made.mask, *known)
    ids = {"origin": made.origin, **made.ids}
    small, large = _sorted_out(made.known)
    notes = [*made.notes, *_ages(source, made.since, run.info.began)]
    made = replace(made, known=None)  # whose memory would stay for the run
    return Detector(name, made, area, ids, small, large), notes


def no_pixels(config: Config, inputs: Mapping[str, Input]) -> list[str]:
    """A line for each of the ``inputs`` that is to be made photons of and is no area detector."""
    return [
        f"photons.{n}: frames of {n} have the shape {i.shape}; photons are made of the pixels of"
        " an area detector"
        for n, i in inputs.items()
        if n in config.photons and i.kind != "area"
    ]


def in_photons(config: Config, found: Detector, run: int) -> Detector:
    """The detector as it is, or with pixels that are whole photons where its input asks for them.

    Raises :class:`ffb.config.ConfigError` with all that is wrong with the settings.
    """
    if (given := config.photons.get(found.input)) is None:
        return found
    try:
        settings = for_run(given, run)
    except LookupError as e:
        raise ConfigError([f"photons.{found.input}: {e}"]) from e
    maps = importlib.import_module("ffb.reducers.photon_map")
    try:
        made = maps.photon_map(found.calibration, settings, found.area)
    except ValueError as e:
        lines = [f"photons.{found.input}.{line}" for line in str(e).splitlines()]
        raise ConfigError(lines) from e
    area = found.area._replace(unit=made.unit, noise=None)
    how = settings.model_dump_json(exclude_defaults=True, exclude={"runs"})
    ids = {**found.ids, f"photons.{found.input}": how}
    return found._replace(calibration=made, area=area, ids=ids)


def _uncalibrated(
    config: Config,
    run: Run,
    name: str,
    given: Input,
    table: CalibrationConfig | None,
    geometry: str,
) -> tuple[Detector, list[str]]:
    """A detector whose pixels stay as they are, with its geometry if there is one."""
    source, (s, rows, columns) = config.inputs[name].source.detector, given.shape
    shape, segments = (s, rows, columns), tuple[int, ...]()
    xyz, corner, dettype = None, None, ""
    notes, ids, since = [], dict[str, str](), dict[str, int]()
    try:
        known = run.constants(source, geometry, store=not geometry)
        xyz, corner = known.xyz, known.corner
        segments, dettype = known.segments, known.dettype
        ids = {k: v for k, v in known.ids.items() if k == "geometry"}
        since = {k: v for k, v in known.since.items() if k == "geometry"}
    except LookupError as e:
        if geometry:
            raise
        why = str(e).partition(";")[0]  # what follows tells how to have constants, or to do without
        notes.append(f"{source} has no geometry: {why}")
    if xyz is not None and xyz.shape[1:] != shape:
        notes.append(f"{source} has no geometry: frames are {shape}, not {xyz.shape[1:]}")
        xyz = None
    constants = importlib.import_module("ffb.reducers.constants")
    plain, masks = constants.uncalibrated(source, table, config.locate, given, segments, dettype)
    area = Area(source, shape, plain.mask, xyz, plain.unit, corner)
    notes += _ages(source, since | masks.since, run.info.began)
    return Detector(name, plain, area, {"origin": "none", **ids, **masks.ids}), notes
