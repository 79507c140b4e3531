"""What is wrong with a configuration, where, and what would be right."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ffb.configuration import conditions, settings
from ffb.configuration.calibration_settings import CalibrationConfig, CommonModeConfig
from ffb.configuration.detector_settings import DetectorConfig, EpicsConfig, FieldConfig
from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.configuration.photon_settings import PhotonConfig
from ffb.configuration.sum_settings import SumConfig

Path = tuple[int | str, ...]

#: At most so many known names are listed where none is near.
MOST = 40

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
}

_SOURCES: dict[str, type[settings.Table]] = {
    "psana": settings.PsanaConfig,
    "files": settings.FilesConfig,
    "synthetic": settings.SyntheticConfig,
    "replay": settings.ReplayConfig,
}
#: Models of the tables in a section, where the section itself is no model of single keys.
_ENTRIES: dict[str, type[settings.Table]] = {
    "inputs": settings.InputConfig,
    "reducers": settings.ReducerConfig,
    "calibration": CalibrationConfig,
    "derived": conditions.DerivedConfig,
    "filters": conditions.FilterConfig,
    "light": conditions.CodesConfig,
    "integrating": IntegratingConfig,
    "detectors": DetectorConfig,
    "epics": EpicsConfig,
    "sums": SumConfig,
    "photons": PhotonConfig,
}


class ConfigError(ValueError):
    """Everything that is wrong with a configuration; ``problems`` has one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Problem(NamedTuple):
    """Something wrong at a place of the configuration."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}"


def dotted(path: Path) -> str:
    """``reducers.spot.params[1].rows``, with quotes around keys that hold a dot or a space."""
    out = ""
    for step in path:
        if isinstance(step, int):
            out += f"[{step}]"
        else:
            key = json.dumps(step) if "." in step or " " in step else step
            out += f".{key}" if out else key
    return out


def nearest(name: str, known: Sequence[str]) -> str:
    """``did you mean 'x'?``, or all known names where none is near, whatever the letters' case."""
    folded = {k.casefold(): k for k in known}
    if close := get_close_matches(name, known, 1):
        return f"did you mean {close[0]!r}?"
    if close := get_close_matches(name.casefold(), list(folded), 1):
        return f"did you mean {folded[close[0]]!r}?"
    if len(close := [k for k in known if re.split("[./]", k)[-1] == name]) == 1:
        return f"did you mean {close[0]!r}?"
    shown = [*sorted(known)[:MOST], *(["..."] if len(known) > MOST else [])]
    return f"known: {', '.join(shown)}" if known else "there are none"


def of_settings(root: type[settings.Table], error: ValidationError) -> list[Problem]:
    """What pydantic found wrong with data for ``root``, the whole file's model, in our words."""
    return [_explain(root, e) for e in error.errors(include_url=False) if not _told_before(e)]


def _told_before(error: ErrorDetails) -> bool:
    """Whether a list is only too short because entries of it, told by themselves, are wrong."""
    return error["type"] == "too_short" and error["ctx"]["actual_length"] < len(error["input"])


def of_parameters(declared: Any, values: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with ``values`` as a reducer's parameters, a NamedTuple type or ``None``."""
    known = list(declared._fields) if declared is not None else []
    unknown = [k for k in values if k not in known]
    problems = [Problem((k,), f"unknown key; {nearest(k, known)}") for k in unknown]
    if declared is None:
        return problems
    hints = {k: spell(t) for k, t in get_type_hints(declared).items()}
    try:
        make_parameters(declared, values)
    except ValidationError as error:
        for e in error.errors(include_url=False):
            if e["type"] == "missing":
                problems.append(Problem(e["loc"], f"missing: {hints[str(e['loc'][0])]}"))
            elif e["type"] != "extra_forbidden":
                key = str(e["loc"][0])
                problems.append(Problem((key,), f"expected {hints[key]}, got {values[key]!r}"))
    return list(dict.fromkeys(problems))


@lru_cache
def _adapter(declared: Any) -> TypeAdapter[Any]:
    return TypeAdapter(declared)


def make_parameters(declared: Any, values: Mapping[str, Any]) -> Any:
    """``values`` as the NamedTuple ``declared``; lists become tuples, integers floats.

    Raises pydantic's ``ValidationError``. JSON is the way in because its strict mode knows that
    a list is how a tuple is written, where Python's strict mode refuses one.
    """
    return _adapter(declared).validate_json(json.dumps(dict(values), default=str), strict=True)


_ONE = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    pathlib.Path: "a path",
}
_MANY = {
    int: "integers",
    float: "numbers",
    bool: "true or false",
    str: "texts",
    pathlib.Path: "paths",
}


def spell(hint: Any) -> str:
    """A parameter's type in the words of someone who writes TOML."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(spell(t) for t in get_args(hint) if t is not NoneType)
    if get_origin(hint) is tuple:
        items = get_args(hint)
        count = "" if Ellipsis in items else f"{len(items)} "
        kinds = dict.fromkeys(_MANY.get(t, str(t)) for t in items if t is not Ellipsis)
        return f"a list of {count}{' and '.join(kinds)}"
    return _ONE.get(hint, str(hint))


def _model(root: type[settings.Table], loc: Path) -> type[settings.Table]:
    """The model of the table that holds the key at ``loc``."""
    match loc[:-1]:
        case ():
            return root
        case ("source", str(kind)):
            return _SOURCES[kind]
        case (str(section),):
            annotation: Any = root.model_fields[section].annotation
            model: type[settings.Table] = annotation
            return model
        case ("detectors", _, "fields", _):
            return FieldConfig
        case ("detectors", _, "computed", _):
            return conditions.DerivedConfig
        case ("calibration", *_, "common_mode"):
            return CommonModeConfig
        case (section, *_):
            return _ENTRIES[str(section)]
    raise AssertionError(f"no model holds {loc}")


def _explain(root: type[settings.Table], error: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words, its path without pydantic's tags."""
    loc, kind, given = error["loc"], error["type"], error["input"]
    path = tuple(s for s in loc if not str(s).startswith("<") and s != "[key]")
    if loc[0] == "source":
        path = (path[0], *path[2:])
    if kind == "extra_forbidden":
        known = list(_model(root, loc).model_fields)
        return Problem(path, f"unknown key; {nearest(str(path[-1]), known)}")
    if kind == "missing":
        meaning = _model(root, loc).model_fields[str(loc[-1])].description or ""
        return Problem(path, f"missing: {_lower(meaning).rstrip('.')}")
    if kind == "union_tag_not_found":
        return Problem((*path, "kind"), f"missing: one of {', '.join(_SOURCES)}")
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return Problem((*path, "kind"), f"no source {tag!r}; {nearest(tag, list(_SOURCES))}")
    if expected := _EXPECTED.get(kind):
        return Problem(path, f"expected {expected}, got {given!r}")
    if kind == "too_short":
        least, length = error["ctx"]["min_length"], error["ctx"]["actual_length"]
        return Problem(path, f"give a list of at least {least}, got {length}")
    if kind == "literal_error":
        return Problem(path, f"expected {error['ctx']['expected']}, got {given!r}")
    text = error["msg"].removeprefix("Value error, ")
    if text.startswith("Input should "):
        return Problem(path, f"must {text.removeprefix('Input should ')}, got {given!r}")
    return Problem(path, _lower(text))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
