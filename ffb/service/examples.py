"""A configuration for every reducer that works as it is: on a run made here, to start from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ffb.configuration import layers
from ffb.reduce import Reducer, TileReducer
from ffb.schema import LASER, XRAY
from ffb.shot import Input

#: A run that is made here, and what it has for arguments.
SOURCE: Mapping[str, Any] = {"kind": "synthetic", "exp": "tstx00001", "shots": 1200}
INPUTS: Mapping[str, Mapping[str, str]] = {
    "edge": {"detector": "timetool", "field": "ttfex.fltpos", "unit": "px"},
    "height": {"detector": "timetool", "field": "ttfex.ampl"},
    "width": {"detector": "timetool", "field": "ttfex.fltposfwhm", "unit": "px"},
    "wave": {"detector": "digitizer", "field": "wave"},
    "area": {"detector": "area", "field": "raw"},
}
LIGHT: Mapping[str, Any] = {"xray": {"off": [162]}, "laser": {"on": [90], "off": [91]}}

#: What an argument takes by its name, or else by its rank.
NAMED: Mapping[str, str] = {
    "xray": XRAY.name,
    "laser": LASER.name,
    "position": "edge",
    "amplitude": "height",
    "fwhm": "width",
    "stage": "scan/delay",
    "arrival": "tt/time",
}
RANKED = ("edge", "wave", "spot/area", "area")

#: Reducers whose features others take: pixels as an image, times of hits as a list, an arrival.
HELPERS: Mapping[str, Mapping[str, Any]] = {
    "spot": {
        "use": "roi",
        "inputs": {"image": "area"},
        "params": {"rows": [20, 44], "cols": [40, 88], "area": True},
    },
    "hits": {
        "use": "waveform_hits",
        "inputs": {"waveform": "wave"},
        "params": {"dt": 1.0, "threshold": 200.0, "baseline": [0, 40], "capacity": 4},
    },
    "tt": {
        "use": "time_tool",
        "inputs": {k: NAMED[k] for k in ("position", "amplitude", "fwhm")},
        "params": {"polynomial": [-1.0, 0.002]},
    },
}


def example(found: Reducer[Any, Any] | TileReducer) -> str:
    """Text of a configuration with a reducer at work.

    Its parameters are those of the ``example()`` of its module, or, without one, all that are
    needed.
    """
    made = getattr(sys.modules.get(found.module), "example", None)
    params, where = made() if made else (None, {})
    described = where if isinstance(where, Mapping) else {}
    taken = {k: _taken(k, rank, described.get(k)) for k, rank in found.inputs.items()}
    tables: dict[str, Mapping[str, Any]] = {"source": SOURCE}
    helpers = {t.partition("/")[0]: HELPERS[t.partition("/")[0]] for t in _columns(taken)}
    needed = {*taken.values()}.union(*(h["inputs"].values() for h in helpers.values()))
    tables["inputs"] = {k: i for k, i in INPUTS.items() if k in needed}
    tables |= {"light": LIGHT} if XRAY.name in needed else {}
    tables |= {f"reducers.{k}": h for k, h in helpers.items()}
    mine: dict[str, Any] = {"use": found.name, "inputs": taken}
    if found.params is not None:
        mine["params"] = {k: toml(v) for k, v in _parameters(found, params).items()}
    tables[f"reducers.my_{found.name}"] = mine
    return "\n".join(_table(name, t) for name, t in tables.items() if t)


def _columns(taken: Mapping[str, str]) -> Iterable[str]:
    return (t for t in taken.values() if t.partition("/")[0] in HELPERS)


def _taken(argument: str, rank: int, described: Input | None) -> str:
    """What an argument takes: an input, or a column."""
    if argument in NAMED:
        return NAMED[argument]
    if rank == 1 and described is not None and described.unit == "ns":
        return "hits/time"
    return RANKED[rank]


def _table(name: str, table: Mapping[str, Any]) -> str:
    lines = [f"{k} = {layers.value(v)}" for k, v in table.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _parameters(found: Any, shown: Any) -> dict[str, Any]:
    """Those that are needed, and those that an example sets."""
    defaults = found.params._field_defaults
    if shown is not None:
        given = shown._asdict()
        return {k: v for k, v in given.items() if k not in defaults or v != defaults[k]}
    hints = get_type_hints(found.params)
    return {k: _sample(hints[k]) for k in found.params._fields if k not in defaults}


def toml(value: Any) -> Any:
    """A parameter as a file has it."""
    return str(value) if isinstance(value, Path) else value


def _sample(hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return [_sample(t) for t in get_args(hint) if t is not Ellipsis]
    simple = {int: 0, float: 0.0, bool: False, str: "", Path: ""}
    return simple[hint] if hint in simple else _sample(get_args(hint)[0])
