"""What a run offers, from the Configure of each of its streams, and how a wish is resolved."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import Any

from ffb.shot import Field
from ffb.sources import digitizer
from ffb.sources.digitizer import Digitizer
from ffb.sources.names import instead, renamed
from ffb.sources.plain import unknown
from ffb.sources.slow import AGE
from ffb.sources.wanted import Role, Segment, Wanted
from ffb.sources.xtc2 import DTYPES, ENUM_DICT, STRING, Buffer, Configure, FieldType

#: Shapes of a segment that the type of a detector tells: (dettype, field) of alg ``raw``.
KNOWN = {
    ("jungfrau", "raw"): (1, 512, 1024),
    ("epix10ka", "raw"): (352, 384),
    ("epix100", "raw"): (704, 768),
}

#: Frames of alg ``raw`` that are pictures however small; archon and axis cameras say ``value``.
PICTURES = ("raw", "image", "value")

#: Types of detector whose field ``raw`` holds packed bits; only psana's code makes pixels of them.
PACKED = ("epixuhr", "epixuhr3x2")

#: Bytes of a segment beyond which any array of rows and columns is an area.
AREA_BYTES = 1 << 16

#: Detectors that describe the run and have nothing to say about a shot.
ABOUT_RUN = ("runinfo", "chunkinfo", "smdinfo", "epicsinfo")

EPICS, SCAN, CONFIG = "epics", "scan", "config"

#: Fields of a timing system.
PULSE, CODES = "pulseId", "sequenceValues"

#: Most asics of one segment that are segments of an area: (asics, rows, columns) is then a frame.
ASICS = 16

#: What is added to a segment's number when there is one of that number already.
SECOND = 1 << 32

#: Bytes of a text in a row; a schema with longer ones would be refused.
MAX_TEXT = 4096

#: Why an array whose length changes is refused.
RAGGED_SENTENCE = "its length changes from shot to shot"

#: What to do about it.
LIST_SENTENCE = "with room = N it is a list of at most N entries"


class Catalogue:
    """Fields, motors and segments of a run, in the order of its Configures (one per stream)."""

    def __init__(self, configures: Sequence[Configure]) -> None:
        self.configures = tuple(configures)
        self._segments: dict[tuple[str, str], dict[int, Segment]] = {}
        for stream, configure in enumerate(configures):
            for names in configure.names.values():
                parts = self._segments.setdefault((names.detector, names.alg), {})
                number = names.segment
                while number in parts:  # archivers of slow values do not always count themselves
                    number += SECOND
                parts[number] = Segment(stream, names)
        #: Detectors whose values come with SlowUpdates, and those that describe steps.
        self.slow, self.scans = self._of_type(EPICS), self._of_type(SCAN)
        self._digitizers = dict(self._digitized())
        packed = {(d.segment.names.detector, d.channel) for d in self._digitizers.values()}
        self.fields = {
            f: self._word(f)
            for f in self._all()
            if f.detector not in self.scans and (f.detector, f.name) not in packed
        } | {f: f"{d}" for f, d in self._digitizers.items()}
        steps = {f.name: self._type(f) for f in self._all() if f.detector in self.scans}
        self.motors = tuple(name for name, t in steps.items() if t.code < STRING and not t.rank)
        #: What each step carries besides, and is not kept: texts and arrays.
        self.unkept = tuple(steps.keys() - {*self.motors, "step_docstring"})
        self.aliases = dict(self._aliases())
        self.clock = self._clock()

    def dettype(self, detector: str) -> str:
        """The type of a detector as Configure has it, ``""`` for an unknown one."""
        for (name, _), parts in self._segments.items():
            if name == detector:
                return next(iter(parts.values())).names.dettype
        return ""

    def transition(
        self, dgrams: Sequence[Buffer | None], detectors: Collection[str]
    ) -> dict[Field, Any]:
        """Values of ``detectors`` in a transition, all segments in all streams together.

        Of a field in several segments the first counts. Raises
        :class:`ffb.sources.xtc2.Xtc2Error`.
        """
        out: dict[Field, Any] = {}
        for configure, dgram in zip(self.configures, dgrams, strict=True):
            for (detector, alg, _), values in configure.decode(dgram).items() if dgram else ():
                if detector in detectors:
                    out = {Field(detector, alg, k): v for k, v in values.items()} | out
        return out

    def damage(self, dgrams: Sequence[Buffer | None]) -> dict[tuple[str, str], int]:
        """Words with which the DAQ marked what is in a shot, by (detector, alg).

        Raises :class:`ffb.sources.xtc2.Xtc2Error`.
        """
        out: dict[tuple[str, str], int] = {}
        for configure, dgram in zip(self.configures, dgrams, strict=True):
            for block in configure.blocks(dgram) if dgram is not None else ():
                key = block.names.detector, block.names.alg
                out[key] = out.get(key, 0) | block.damage
        return out

    def resolve(
        self, field: Field, shape: tuple[int, ...] | None = None, room: int = 0
    ) -> tuple[Field, Wanted]:
        """Find who writes ``field``; ``dims`` of an array of unknown shape are ``(-1, ...)``.

        The field comes back with the name the data have (a PV's alias). ``shape`` is what the
        configuration of the run states, ``room`` how many entries a list, or bytes a text, may
        have. Raises ``LookupError`` with a sentence.
        """
        if (digitized := self._digitizers.get(field)) is not None:
            try:
                return field, digitized.wanted(shape, room)
            except LookupError as e:
                raise LookupError(f"{field}: {e}") from e
        if field.detector in self.slow and field.name in self.aliases:
            field = field._replace(name=self.aliases[field.name])
        if field.detector in self.slow and field.alg == AGE:
            return field, self._age(field)
        parts = self._parts(field)
        if not parts:
            field = renamed(field, self.dettype(field.detector))
            parts = self._parts(field)
        if not parts or field.detector in ABOUT_RUN:
            text = instead(field, self.dettype(field.detector))
            raise LookupError(self._undecoded(field) or text or self._why_not(field))
        if field.detector in self.slow:
            parts = parts[:1]
        kind, dettype = _type(parts[0], field.name), parts[0].names.dettype
        if why := self._unusable(field, kind, dettype, parts):
            raise LookupError(f"{field}{why}")
        if kind.code == STRING or room:
            return field, self._list(field, kind, parts, room)
        if shape is not None and len(shape) == 3 and kind.rank == 1:
            if shape[:2] != (len(parts), 1):
                raise LookupError(f"{field}: a line is an area of [{len(parts)}, 1, columns]")
            return field, Wanted(tuple(parts), kind, "area", shape[2:])
        dims = self._dims(field, kind, len(parts), dettype, shape)
        return field, wanted(field, tuple(parts), kind, dims)

    def _unusable(
        self, field: Field, kind: FieldType, dettype: str, parts: Sequence[Segment]
    ) -> str:
        """Why a field that the run has cannot be an input; empty if it can."""
        if field.detector in self.scans:
            return (
                " belongs to a step, not to a shot; every row carries its step, and the file has"
                " its values"
            )
        if field.alg == CONFIG:
            return " is configuration: it does not change within the run"
        if kind.code == ENUM_DICT:
            return " is a word of an enumeration: its number never changes"
        if any(_type(p, field.name) != kind for p in parts):
            return " has a different type in each segment"
        if dettype in PACKED and (field.alg, field.name) == ("raw", "raw"):
            return (
                f": the pixels of {dettype} are packed bits that only psana unpacks, shot by shot;"
                " use its other fields"
            )
        if dettype == digitizer.DETTYPE and kind.code == 0 and kind.rank == 1:
            known = [f for f in self._digitizers if f.detector == field.detector]
            decoded = ", ".join(f"{f.alg}.{f.name}" for f in known[:5])
            other = self._undecoded(field) or f"its traces and peaks are the fields {decoded}"
            return f" is packed; {other}"
        return ""

    def _age(self, field: Field) -> Wanted:
        """The age of a slow value, which its updates tell, whatever the value's own type."""
        algs = [alg for detector, alg in self._segments if detector == field.detector]
        for alg in algs:
            if parts := self._parts(field._replace(alg=alg)):
                return Wanted(
                    (parts[0],), FieldType(field.name, DTYPES.index("<f8"), 0), "value", ()
                )
        raise LookupError(self._why_not(field._replace(alg="raw")))

    def _list(self, field: Field, kind: FieldType, parts: list[Segment], room: int) -> Wanted:
        """Resolve a text, or an array whose length may change."""
        if kind.code == STRING and not room:
            raise LookupError(
                f"{field} is a string; with record = true and room = N it is a column of texts of"
                " at most N bytes, and has no other use"
            )
        if kind.rank != 1 or len(parts) > 1:
            many = f" in {len(parts)} segments" * (len(parts) > 1)
            raise LookupError(f"{field} is {kind}{many}: only an array of rank 1 has room")
        if kind.code == STRING and room > MAX_TEXT:
            raise LookupError(f"{field} is a string: texts have room for {MAX_TEXT} bytes at most")
        role = Role.TEXT if kind.code == STRING else Role.LIST
        return Wanted(tuple(parts), kind, "value", (room,), role)

    def _dims(
        self, field: Field, kind: FieldType, n: int, dettype: str, shape: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Shape of one segment as the datagram has it: stated, known, or -1 for each axis."""
        if shape and kind.rank:
            inner = shape[1:] if shape[0] == n else shape
            asics = (shape[0] // n, *shape[1:]) if shape[0] % n == 0 else shape
            for dims in (inner, asics, (1, *inner), shape):
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

    def _digitized(self) -> Iterator[tuple[Field, Digitizer]]:
        """Fields of digitizers: what is decoded from the bytes of their channels."""
        for (detector, alg), parts in self._segments.items():
            configs = {
                number: values
                for configure in self.configures
                for (name, kind, number), values in configure.values.items()
                if (name, kind) == (detector, CONFIG)
            }
            for name, made in digitizer.offered(alg, parts, configs):
                yield Field(detector, alg, name), made

    def _parts(self, field: Field) -> list[Segment]:
        """Segments that have ``field``, by number; all of a detector have it, but for EPICS."""
        parts = self._segments.get((field.detector, field.alg), {})
        return [
            p for _, p in sorted(parts.items()) if any(f.name == field.name for f in p.names.fields)
        ]

    def _undecoded(self, field: Field) -> str:
        """Say why nothing is decoded of a digitizer, ``""`` if it is none, or is decoded."""
        parts = self._segments.get((field.detector, field.alg))
        if not parts or any(f[:2] == field[:2] for f in self._digitizers):
            return ""
        names = next(iter(parts.values())).names
        return digitizer.undecoded(names) if names.dettype == digitizer.DETTYPE else ""

    def _why_not(self, field: Field) -> str:
        if field.detector in self.slow and self.aliases:
            known = [field._replace(name=pv) for pv in self.aliases]
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
        """Where a timing system, whatever its name, writes pulse id and event codes.

        Preferred is one that has event codes, then one called ``timing``.
        """
        found: list[tuple[bool, bool, str, str, Segment]] = []
        for (detector, alg), parts in self._segments.items():
            part = parts[min(parts)]
            have = {f.name: (f.code, f.rank) for f in part.names.fields}
            if part.names.dettype == "ts" and alg in ("raw", "ts") and have.get(PULSE) == (3, 0):
                lacks = have.get(CODES) != (1, 1)  # uint16, rank 1
                found.append((lacks, detector != "timing", detector, alg, part))
        return min(found, key=lambda f: f[:4])[-1] if found else None

    @property
    def coded(self) -> bool:
        """Whether the timing system tells event codes."""
        return self.clock is not None and FieldType(CODES, 1, 1) in self.clock.names.fields

    @property
    def step_streams(self) -> set[int]:
        """Numbers of the streams that describe steps."""
        of = (p.values() for (d, _), p in self._segments.items() if d in self.scans)
        return {part.stream for parts in of for part in parts}

    def _of_type(self, dettype: str) -> set[str]:
        """Names of the detectors of a type; the DAQ calls them by their type."""
        return {d for d, _ in self._segments if self.dettype(d) == dettype} | {dettype}


def wanted(
    field: Field, parts: tuple[Segment, ...], kind: FieldType, dims: tuple[int, ...]
) -> Wanted:
    """Decide whether a field is an area: rows and columns, and a picture or large."""
    picture = field.alg == "raw" and field.name in PICTURES
    flat = kind.rank == 2 or (kind.rank == 3 and 0 < dims[0] <= (ASICS if picture else 1))
    large = -1 not in dims and prod(dims) * kind.size > AREA_BYTES
    return Wanted(parts, kind, "area" if flat and (picture or large) else "value", dims)


def _type(part: Segment, name: str) -> FieldType:
    return next(f for f in part.names.fields if f.name == name)
