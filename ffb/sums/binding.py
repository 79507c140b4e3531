"""Bind the configured sums over shots to a run: what they are of, and what they take of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffb.config import Config
from ffb.configuration import resolve
from ffb.configuration.derive import made_of
from ffb.loops.wiring import owner_of
from ffb.shot import Input
from ffb.sums.held import MOST_BYTES, Summing, form_of
from ffb.sums.words import STATES, What

if TYPE_CHECKING:
    from ffb.loops.calibrated import Detector

#: Type of calibrated pixels, types of values that are added beside whole numbers, and axes at most.
_PIXEL, _FLOATS, _AXES = "<f4", ("float32", "float64"), 3

_Find = Callable[[str, str], Input | None]
_Detector = Callable[[str], "Detector | None"]


def bind_sums(
    config: Config,
    find: _Find,
    detector: _Detector,
    problems: list[str],
    notes: list[str],
) -> dict[str, list[Summing]]:
    """Sums over each input or column; ``find`` gives it, and ``detector`` that of an area.

    What is wrong goes to ``problems``, what they take of memory to ``notes``.
    """
    out: dict[str, list[Summing]] = {}
    for name, c in config.sums.items():
        column = c.input or name
        if (given := find(f"sums.{name}.input", column)) is None:
            continue  # what is wrong with it is told already
        if wrong := _unfit(column, given, c.whats):
            problems.append(f"sums.{name}.{wrong}")
        found = detector(column) if given.kind == "area" else None
        if wrong or (found is None and given.kind == "area"):
            continue
        dtype, unit, ids = given.dtype, given.unit, dict[str, str]()
        mask = np.ones(given.shape, np.bool_)
        if found is not None:
            dtype, unit, mask, ids = _PIXEL, found.area.unit, found.area.mask, dict(found.ids)
        settings = c.model_dump_json() + _facts(config, c.where, column, find, detector)
        field = str(config.inputs[column].source) if column in config.inputs else column
        form = form_of([settings, field, given.shape, given.dtype, unit, ids], mask)
        made = Summing(name, c.whats, c.lights, c.per == "step", form, unit, c.where, dtype)
        out.setdefault(column, []).append(made)
        size, states = made.pixel_bytes * prod(given.shape), len(STATES) ** len(c.lights)
        each = f" for each of up to {states} states of the lights" if c.lights else ""
        notes.append(f"sums.{name} takes {size / 1e6:,.1f} MB in each producer{each}")
        if size * states > MOST_BYTES:
            problems.append(
                f"sums.{name}: {size / 1e6:,.0f} MB in each producer{each}; {MOST_BYTES / 1e6:,.0f}"
                " MB are allowed in all: add up less, or tell fewer lights apart"
            )
    return out


def _unfit(column: str, given: Input, whats: Sequence[What]) -> str:
    """Why an input, or a column, cannot be added up so, after the key that says so; or ``""``."""
    dtype, raw = np.dtype(given.dtype), any(w.of == "raw" for w in whats)
    whole = dtype.kind in "iu"
    if given.kind == "area":
        said = f"what: raw pixels are {given.dtype}, not whole numbers; use calib"
        return said if raw and not whole else ""
    if given.length:
        return (
            f"input: {column} is a list, whose entries are different things in every shot; add up"
            " an array whose places keep their meaning, such as a histogram"
        )
    if not (whole or dtype.name in _FLOATS):
        floats = " and ".join(_FLOATS)
        return f"input: {column} holds {dtype.name}; whole numbers, {floats} are added up"
    if not 0 < len(given.shape) <= _AXES or 0 in given.shape:
        return (
            f"input: {column} has the shape {given.shape}; arrays of up to {_AXES} axes are added"
            " up, and what is one number a shot is a column of the file"
        )
    if raw:
        return (
            f"what: raw is for area detectors; {column} is added up as it comes, in float64: use"
            " calib"
        )
    return ""


def _facts(config: Config, where: str, summed: str, find: _Find, detector: _Detector) -> str:
    """All that decides which shots are ``where`` a condition holds, and what a feature holds.

    It is down to reducers, constants of detectors, and lights; of an input itself there is nothing.
    """
    own = {summed} - config.inputs.keys()
    if not where and not own:
        return ""
    expressions = {n: e.expr for n, e in (config.derived | config.filters).items()}
    used, columns = made_of(where, expressions) if where else ({}, set[str]())
    facts = [config.light.model_dump_json(), *(f"{n} = {e}" for n, e in sorted(used.items()))]
    asked, seen = sorted(columns | own), set[str]()
    while asked:
        column = asked.pop()
        name = owner_of(column, config.reducers)
        if name and name not in seen and column not in config.inputs:
            seen.add(name)
            c = config.reducers[name]
            folder = config.path.parent if config.path else Path()
            facts += [name, c.model_dump_json()]
            with suppress(LookupError):  # what is wrong with it is told already
                facts.append(resolve.reducer(c.use, folder).hash)
            asked += [c.inputs] if isinstance(c.inputs, str) else sorted(c.inputs.values())
        group = config.detectors.get(column.partition("/")[0])
        facts += [group.model_dump_json()] if group else []
        given = find("", column) if column in config.inputs else None
        if given is not None and given.kind == "area" and (found := detector(column)) is not None:
            facts.append(form_of([dict(found.ids)], found.area.mask))
    return json.dumps(facts)
