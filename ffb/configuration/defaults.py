"""Default detectors: those that a hutch records of every run, made into inputs of one run.

A detector that the run does not have is no error: the run is told of it in a warning, its columns
are not in the file, and ``damage/<detector>`` says missing for all shots.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ffb.config import Config
from ffb.configuration.conditions import DerivedConfig
from ffb.configuration.detector_settings import DetectorConfig, FieldConfig, KindConfig
from ffb.configuration.problems import nearest
from ffb.configuration.settings import InputConfig
from ffb.shot import Field
from ffb.source import Run

#: What the DAQ says of every beam-line datum, and nobody asks for.
_BESIDE = ("TypeId", "Version")

#: The detector of slow values, which no shot brings, and which nothing marks as damaged.
EPICS = "epics"

#: In place of psana's interface to a value: its age.
_AGE = "age"

#: What a run calls a field that is a text, and how many bytes of one are recorded.
_TEXT, _ROOM = "string", 64


class Defaults(NamedTuple):
    """What the default detectors of a configuration come to in a run.

    ``config`` has them among its inputs. ``sources`` tells for each of those inputs what in the
    file asked for it, ``computed`` are columns to be computed of theirs, each dropped where it
    cannot be, ``warnings`` name what the run does not have.
    """

    config: Config
    sources: dict[str, str]
    computed: dict[str, DerivedConfig]
    warnings: list[str]

    @classmethod
    def of(cls, config: Config, run: Run) -> Defaults:
        """List the default detectors that ``run`` has."""
        inputs: dict[str, InputConfig] = {}
        sources: dict[str, str] = {}
        computed: dict[str, DerivedConfig] = {}
        warnings: list[str] = []
        for group, detector in config.detectors.items():
            if not detector.record:
                continue
            found, missing = _detector(group, detector, run.fields)
            warnings += missing
            inputs |= found
            sources |= dict.fromkeys(found, f"detectors.{group}")
            if found:
                computed |= dict(_computed(group, detector))
        for alias, value in config.epics.items():
            if value.record:
                made = _slow(alias, config, run.fields)
                inputs |= made
                sources |= dict.fromkeys(made, f"epics.{alias}")
        ours = {n: i for n, i in inputs.items() if n not in config.inputs}  # the experiment's win
        changed = config.model_copy(update={"inputs": {**ours, **config.inputs}})
        sources = {n: s for n, s in sources.items() if n in ours}
        return cls(changed, sources, computed, warnings)

    def refused(self, sentence: str) -> str | None:
        """The warning of a sentence with which a run refuses one of the inputs.

        ``""`` where it is of the age of a slow value, which has a warning of its own; ``None`` for
        inputs that no default detector has asked for.
        """
        name, _, why = sentence.removeprefix("inputs.").removeprefix("input ").partition(": ")
        if name not in self.sources:
            return None
        aged = self.config.inputs[name].field.startswith(f"{_AGE}.")
        return "" if aged else f"{self.sources[name]}: {name} is not recorded: {why}"

    def given_way(self, name: str, taken: Collection[str]) -> str | None:
        """Why a default column cannot stand beside the experiment's, ``taken``.

        ``None`` where it can, ``""`` where it is replaced by one of its own name.
        """
        parts = name.split("/")
        above = {"/".join(parts[:k]) for k in range(1, len(parts) + 1)}
        other = next((t for t in taken if t in above or t.startswith(f"{name}/")), None)
        if other is None or other == name:
            return None if other is None else ""
        return f"{name} is not recorded: the experiment has a column {other}"

    @property
    def listed(self) -> list[str]:
        """The detectors of which the damage is recorded, in the order of the file."""
        if not self.config.damage:
            return []
        listed = [d.detector or g for g, d in self.config.detectors.items() if d.record]
        named = [i.detector for n, i in self.config.inputs.items() if n not in self.sources]
        return [d for d in dict.fromkeys([*listed, *named]) if d != EPICS]


def _detector(
    group: str, detector: DetectorConfig, fields: Mapping[Field, str]
) -> tuple[dict[str, InputConfig], list[str]]:
    """Inputs of a detector, and what is missing of it."""
    name, kind = detector.detector or group, detector.described()
    where = f"detectors.{group}"
    there = [f for f in fields if f.detector == name]
    if not there:
        known = sorted({f.detector for f in fields})
        near = nearest(name, known)
        hint = "" if near.startswith("known") else f"; {near}"  # a hutch lacks many of its own
        return {}, [f"{where}: no detector {name!r} in this run{hint}"]
    inputs: dict[str, InputConfig] = {}
    missing = []
    for alg in kind.algs:
        of = [f for f in there if f.alg == alg]
        if not of:
            has = ", ".join(dict.fromkeys(f.alg for f in there))
            missing.append(f"{where}: {name} has no {alg} in this run; it has {has}")
        for f in of:
            column, described = _describe(f, kind, alg == kind.algs[0])
            if described is not None and f"{group}/{column}" not in inputs:
                room = described.room or (_ROOM if fields[f] == _TEXT else None)
                described = described.model_copy(update={"room": room})
                inputs[f"{group}/{column}"] = _input(f, described, name)
    return inputs, missing


def _describe(field: Field, kind: KindConfig, first: bool) -> tuple[str, FieldConfig | None]:
    """Name and description of a field's column, ``None`` where it has none."""
    name = field.name if first else f"{field.alg}.{field.name}"
    for key, described in kind.fields.items():
        matched = re.fullmatch(re.escape(key).replace(r"\*", "(.*)"), name)
        if matched:
            doc = described.doc
            for part in matched.groups():
                doc = doc.replace("*", part, 1)
            column = described.name or field.name
            wanted = described.model_copy(update={"doc": doc})
            return column, wanted if described.record else None
    hidden = field.name.startswith("_") or field.name in _BESIDE
    return field.name, FieldConfig() if kind.rest and not hidden else None


def _input(field: Field, described: FieldConfig, detector: str) -> InputConfig:
    return InputConfig(
        detector=field.detector,
        field=f"{field.alg}.{field.name}",
        shape=described.shape,
        room=described.room,
        unit=described.unit,
        doc=described.doc or f"{field.name} of {detector}, which its kind does not describe",
        record=True,
        unpack=described.unpack,
    )


def _computed(group: str, detector: DetectorConfig) -> Iterator[tuple[str, DerivedConfig]]:
    for name, c in detector.described().computed.items():
        expr = re.sub(r"\bself\b(?=\s*\.)", group, c.expr)
        yield f"{group}/{name}", c.model_copy(update={"expr": expr})


def _slow(alias: str, config: Config, fields: Mapping[Field, str]) -> dict[str, InputConfig]:
    """A slow value with every shot, and its age."""
    value = config.epics[alias]
    pv = value.pv or alias
    name, doc = f"{value.group}/{alias}", value.doc or f"{pv}, the last value before the shot"
    text = fields.get(Field(EPICS, "raw", pv)) == _TEXT
    room = value.room or (_ROOM if text else None)
    return {
        name: InputConfig(
            detector=EPICS, field=f"raw.{pv}", room=room, unit=value.unit, doc=doc, record=True
        ),
        f"{name}_age": InputConfig(
            detector=EPICS,
            field=f"{_AGE}.{pv}",
            unit="s",
            doc=f"time since {alias} was read, at the shot",
            record=True,
        ),
    }
