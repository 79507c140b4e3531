"""Bind the configured sums over shots to a run: their frames, and what they take of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from ffb.sums.words import STATES

if TYPE_CHECKING:
    from ffb.loops.calibrated import Detector


def bind_sums(
    config: Config,
    inputs: Mapping[str, Input],
    detector: Callable[[str], Detector | None],
    problems: list[str],
    notes: list[str],
) -> dict[str, list[Summing]]:
    """Sums over the frames of each input; ``detector`` gives that of an input.

    What is wrong goes to ``problems``, what they take of memory to ``notes``.
    """
    out: dict[str, list[Summing]] = {}
    for name, c in config.sums.items():
        input_ = c.input or name
        if (given := inputs.get(input_)) is None:
            continue  # what is wrong with it is told already
        if given.kind != "area":
            wrong = f"{input_} has frames of shape {given.shape}; areas alone can be added up"
            problems.append(f"sums.{name}.input: {wrong}")
            continue
        if any(w.of == "raw" for w in c.whats) and np.dtype(given.dtype).kind not in "iu":
            wrong = f"raw pixels are {given.dtype}, not whole numbers; use calib"
            problems.append(f"sums.{name}.what: {wrong}")
        if (found := detector(input_)) is None:
            continue
        field = str(config.inputs[input_].source)
        settings = c.model_dump_json() + _facts(config, c.where)
        form = form_of(settings, field, found.calibration, found.area, found.ids)
        made = Summing(name, c.whats, c.lights, c.per == "step", form, found.area.unit, c.where)
        out.setdefault(input_, []).append(made)
        size, states = made.pixel_bytes * prod(given.shape), len(STATES) ** len(c.lights)
        each = f" for each of up to {states} states of the lights" if c.lights else ""
        notes.append(f"sums.{name} takes {size / 1e6:,.1f} MB in each producer{each}")
        if size * states > MOST_BYTES:
            problems.append(
                f"sums.{name}: {size / 1e6:,.0f} MB in each producer{each}; {MOST_BYTES / 1e6:,.0f}"
                " MB are allowed in all: add up less, or tell fewer lights apart"
            )
    return out


def _facts(config: Config, where: str) -> str:
    """All that decides which shots are ``where`` a condition holds, down to reducers and lights."""
    if not where:
        return ""
    expressions = {n: e.expr for n, e in (config.derived | config.filters).items()}
    used, columns = made_of(where, expressions)
    facts = [config.light.model_dump_json(), *(f"{n} = {e}" for n, e in sorted(used.items()))]
    asked, seen = sorted(columns), set[str]()
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
        detector = config.detectors.get(column.partition("/")[0])
        facts += [detector.model_dump_json()] if detector else []
    return json.dumps(facts)
