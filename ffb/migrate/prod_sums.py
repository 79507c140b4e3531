"""What a production configuration of smalldata_tools adds up over a run, as sums of ours.

Exports :func:`summed`. There an algorithm is named by tokens: ``calib_thresADU5_max``,
``calib_dropped_square``; the shots that were dropped are those without x-rays here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ffb.configuration.sum_settings import SumConfig
from ffb.migrate.given import Remark
from ffb.migrate.static import Module
from ffb.migrate.static_values import Table, Unread
from ffb.sums.piece import NAME

#: Functions that name what is added up, of LCLS-I and LCLS-II.
FUNCTIONS = ("getDetSums", "get_sum_algos")

#: Tokens that say how or of which shots, and what is here instead.
_SILENT = {"img": "sums have the detector's own shape; its geometry is in the file"}
_LIGHT = "dropped"


def summed(
    module: Module, function: str, detectors: Sequence[str], arguments: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], list[Remark]]:
    """Tables by detector, ``detectors`` being those for which "all" stands, and remarks.

    ``arguments`` say of detectors what reducers take them for, ``"image"`` or ``"waveform"``.
    """
    first, *others = module.of_runs(function)
    line = module.functions[function].lineno
    remarks = [Remark(u.line, f"{function}: {u.why}") for u in first.unread]
    if others:
        text = f"{function}: runs from {others[0].first} on have others; sums are those of all runs"
        remarks.append(Remark(line, text))
    if not isinstance(first.value, Table):
        why = (
            first.value.why
            if isinstance(first.value, Unread)
            else "does not give a dict by detector"
        )
        return {}, [*remarks, Remark(line, f"{function}: {why}")]
    out: dict[str, dict[str, Any]] = {}
    for key, names in first.value.items():
        at = first.value.lines.get(key, line)
        table = _table(f"{function} of {key}", names, at, remarks)
        for name in (detectors if key == "all" else [str(key)]) if table else ():
            if not NAME.fullmatch(name) or any(_alike(name, n) for n in {*out} - {name}):
                remarks.append(Remark(at, f"{function}: {name}: give the sum another name"))
            else:
                fits = _fitting(
                    table, arguments.get(name, ""), f"{function} of {name}", at, remarks
                )
                out[name] = _joined(out.get(name, {}), fits)
    return out, remarks


def _table(where: str, names: Any, line: int, remarks: list[Remark]) -> dict[str, Any]:
    """What is added of a detector."""
    what: list[str] = []
    light = False
    for name in names if isinstance(names, list | tuple) else [names]:
        if not isinstance(name, str):
            remarks.append(Remark(line, f"{where}: not the name of a sum: {name!r}"))
            continue
        tokens = name.split("_")
        light |= _LIGHT in tokens
        why = (_SILENT[t] for t in tokens if t in _SILENT)
        remarks += [Remark(line, f"{where}: {name}: {w}", lost=False) for w in why]
        made = "_".join(t for t in tokens if t not in _SILENT and t != _LIGHT)
        try:
            SumConfig(what=(made,))
        except ValidationError as e:
            if "says nothing without its sum" in str(e):
                what.append(made.replace("_square", ""))
            else:
                said = e.errors()[0]["msg"].removeprefix("Value error, ")
                remarks.append(Remark(line, f"{where}: {said}"))
                continue
        what.append(made)
    table: dict[str, Any] = {"what": list(dict.fromkeys(what))} if what else {}
    if table and light:
        table["light"] = ["xray"]
        text = f"{where}: sums of dropped shots are those of x-rays off, beside all others"
        remarks.append(Remark(line, text, lost=False))
    return table


def _fitting(
    table: dict[str, Any], argument: str, where: str, line: int, remarks: list[Remark]
) -> dict[str, Any]:
    """The table for what a detector gives: a waveform has nothing but what it gives, no ``raw``."""
    own = [w for w in table["what"] if w.startswith("raw")]
    if not own or argument == "image":
        return table
    if argument != "waveform":
        text = f"{where}: raw is of area detectors; of a waveform write calib, as it comes"
        remarks.append(Remark(line, text, lost=False))
        return table
    remarks.append(Remark(line, f"{where}: a waveform is added up as it comes: calib", lost=False))
    return {**table, "what": [re.sub("^raw", "calib", w) for w in table["what"]]}


def _joined(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    return {
        key: list(dict.fromkeys([*one.get(key, ()), *two.get(key, ())]))
        for key in ("what", "light")
        if key in one or key in two
    }


def _alike(name: str, other: str) -> bool:
    """Whether datasets of one could be taken for those of the other."""
    return name.startswith(f"{other}_") or other.startswith(f"{name}_")
