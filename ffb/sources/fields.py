"""What a run offers, from the Configure of each of its streams, and how a wish is resolved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from ffb.shot import Field
from ffb.sources.gather import Segment, Wanted
from ffb.sources.plain import unknown
from ffb.sources.xtc2 import ENUM_DICT, STRING, Buffer, Configure, FieldType

#: Shapes of a segment that the type of a detector tells: (dettype, field) of alg ``raw``.
KNOWN = {
    ("jungfrau", "raw"): (1, 512, 1024),
    ("epix10ka", "raw"): (352, 384),
    ("epix100", "raw"): (704, 768),
}

#: Frames of alg ``raw`` that are pictures however small.
PICTURES = ("raw", "image")

#: Bytes of a segment beyond which any array of rows and columns is an area.
AREA_BYTES = 1 << 16

#: Detectors that describe the run and have nothing to say about a shot.
ABOUT_RUN = ("runinfo", "chunkinfo", "smdinfo", "epicsinfo")

EPICS, SCAN, CONFIG = "epics", "scan", "config"


class Catalogue:
    """Fields, motors and segments of a run, in the order of its Configures (one per stream)."""

    def __init__(self, configures: Sequence[Configure]) -> None:
        self.configures = tuple(configures)
        self._segments: dict[tuple[str, str], dict[int, Segment]] = {}
        for stream, configure in enumerate(configures):
            for names in configure.names.values():
                parts = self._segments.setdefault((names.detector, names.alg), {})
                parts[names.segment] = Segment(stream, names)
        self.fields = {f: self._word(f) for f in self._all() if f.detector != SCAN}
        self.motors = tuple(
            f.name for f in self._all() if f.detector == SCAN and self._type(f).code < STRING
        )
        self.aliases = dict(self._aliases())
        self.clock = self._clock()

    def dettype(self, detector: str) -> str:
        """The type of a detector as Configure has it, ``""`` for an unknown one."""
        for (name, _), parts in self._segments.items():
            if name == detector:
                return next(iter(parts.values())).names.dettype
        return ""

    def transition(self, dgrams: Sequence[Buffer | None], detector: str) -> dict[str, Any]:
        """Values of ``detector`` in a transition, all its blocks in all streams together.

        Raises :class:`ffb.sources.xtc2.Xtc2Error`.
        """
        out: dict[str, Any] = {}
        for configure, dgram in zip(self.configures, dgrams, strict=True):
            for key, values in configure.decode(dgram).items() if dgram is not None else ():
                if key[0] == detector:
                    out.update(values)
        return out

    def resolve(self, field: Field, shape: tuple[int, ...] | None) -> tuple[Field, Wanted]:
        """Find who writes ``field``; ``dims`` of an array of unknown shape are ``(-1, ...)``.

        The field comes back with the name the data have (a PV's alias). ``shape`` is what the
        configuration of the run states. Raises ``LookupError`` with a sentence.
        """
        if field.detector == EPICS and field.name in self.aliases:
            field = field._replace(name=self.aliases[field.name])
        parts = self._parts(field)
        if not parts or field.detector in ABOUT_RUN:
            raise LookupError(self._why_not(field))
        if field.detector == SCAN:
            raise LookupError(
                f"{field} belongs to a step, not to a shot; every row carries its step, and the"
                " file has its values"
            )
        if field.alg == CONFIG:
            raise LookupError(f"{field} is configuration: it does not change within the run")
        kind = _type(parts[0], field.name)
        if kind.code in (STRING, ENUM_DICT):
            raise LookupError(f"{field} is a string; only numbers can be inputs")
        if any(_type(p, field.name) != kind for p in parts):
            raise LookupError(f"{field} has a different type in each segment")
        dims = self._dims(field, kind, len(parts), parts[0].names.dettype, shape)
        return field, wanted(field, tuple(parts), kind, dims)

    def _dims(
        self, field: Field, kind: FieldType, n: int, dettype: str, shape: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Shape of one segment as the datagram has it: stated, known, or -1 for each axis."""
        if shape is not None and kind.rank:
            inner = shape[1:] if shape[0] == n else shape
            for dims in (inner, (1, *inner), shape):
                if len(dims) == kind.rank:
                    return dims
        if shape is not None and shape != (() if n == 1 else (n,)):
            raise LookupError(
                f"the shape {list(shape)} is stated for {field}, which has {n} segment"
                f"{'s' * (n > 1)} of rank {kind.rank}"
            )
        if field.alg == "raw" and len(known := KNOWN.get((dettype, field.name), ())) == kind.rank:
            return known
        return (-1,) * kind.rank

    def _parts(self, field: Field) -> list[Segment]:
        """Segments that have ``field``, by number; all of a detector have it, but for EPICS."""
        parts = self._segments.get((field.detector, field.alg), {})
        return [
            p for _, p in sorted(parts.items()) if any(f.name == field.name for f in p.names.fields)
        ]

    def _why_not(self, field: Field) -> str:
        if field.detector == EPICS and self.aliases:
            known = [Field(EPICS, field.alg, pv) for pv in self.aliases]
            return unknown(field, [*self.fields, *known])
        return unknown(field, self.fields)

    def _all(self) -> Iterator[Field]:
        for (detector, alg), parts in self._segments.items():
            if detector not in ABOUT_RUN and alg != CONFIG:
                every = [f for p in parts.values() for f in p.names.fields if f.code != ENUM_DICT]
                names = {f.name: None for f in every}
                yield from (Field(detector, alg, name) for name in names)

    def _type(self, field: Field) -> FieldType:
        return _type(self._parts(field)[0], field.name)

    def _word(self, field: Field) -> str:
        parts = self._parts(field)
        segments = f", {len(parts)} segments" if len(parts) > 1 else ""
        return f"{self._type(field)}{segments}"

    def _aliases(self) -> Iterator[tuple[str, str]]:
        """Pairs of a process variable's full name and the short one the data have."""
        for configure in self.configures:
            for (detector, _, _), values in configure.values.items():
                if detector == "epicsinfo":
                    for alias, pv in values.items():
                        if alias != "keys" and isinstance(pv, str):
                            yield pv, alias

    def _clock(self) -> Segment | None:
        """Where the timing system writes pulse id and event codes."""
        need = {"pulseId": (3, 0), "sequenceValues": (1, 1)}
        for (_, alg), parts in sorted(
            self._segments.items(), key=lambda item: item[0][0] != "timing"
        ):
            part = parts[min(parts)]
            have = {f.name: (f.code, f.rank) for f in part.names.fields}
            if part.names.dettype == "ts" and alg == "raw" and need.items() <= have.items():
                return part
        return None


def wanted(
    field: Field, parts: tuple[Segment, ...], kind: FieldType, dims: tuple[int, ...]
) -> Wanted:
    """Decide whether a field is an area: rows and columns, and a picture or large."""
    flat = kind.rank == 2 or (kind.rank == 3 and dims[0] == 1)
    picture = field.alg == "raw" and field.name in PICTURES
    large = -1 not in dims and prod(dims) * kind.size > AREA_BYTES
    return Wanted(parts, kind, "area" if flat and (picture or large) else "value", dims)


def _type(part: Segment, name: str) -> FieldType:
    return next(f for f in part.names.fields if f.name == name)
