"""A production configuration of smalldata_tools, read without running it, as one of ours.

Exports :func:`translate` and :class:`Imported`. The text is read by :mod:`ffb.migrate.static`,
parameters become those of reducers by :mod:`ffb.migrate.translations`; what depends on the run has
run ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ffb.configuration import layers, problems, resolve
from ffb.configuration.runs import RunRange, overlaps
from ffb.migrate.given import Given, Made, Remark
from ffb.migrate.prod_sums import FUNCTIONS, summed
from ffb.migrate.scattering import by_detector, is_flat
from ffb.migrate.static import Module, Reading
from ffb.migrate.static_values import Table, Unread
from ffb.migrate.translations import RULES, Rule

#: Characters of a file that may be a configuration.
LONGEST = 1 << 20

#: Names at the top of a configuration that are no functions, and what becomes of them.
_LISTS = {
    "detectors": "",
    "detnames": "",
    "xdetectors": "what is not asked for is not read",
    "epicsPV": "the archiver is not asked; [epics] records values with every shot",
    "aioParams": "write them as `computed` of the detector, with scale, offset and unit",
    "ttCalib": "",
    "epicsArchFilePV": "",
    "epicsOncePV": "",
}


class Row(NamedTuple):
    """Parameters of a reducer for some runs, and where they come from."""

    runs: RunRange
    params: Mapping[str, Any]
    line: int


@dataclass
class Draft:
    """A reducer as it comes together: rows in order of their runs."""

    detector: str
    use: str
    argument: str
    of: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def input(self) -> str:
        """What it takes: the detector, or a column that another reducer makes of it."""
        return f"{self.detector}/{self.of}" if self.of else self.detector

    def add(self, row: Row) -> None:
        """Add a row, joined to the one before where that says the same of the runs before."""
        if self.rows and self.rows[-1].params == row.params:
            before = self.rows[-1]
            if before.runs.last is not None and before.runs.last + 1 == row.runs.first:
                self.rows[-1] = before._replace(runs=RunRange(before.runs.first, row.runs.last))
                return
        self.rows.append(row)

    def gaps(self) -> Iterator[RunRange]:
        """Runs from 1 on without parameters."""
        first: int | None = 1
        for row in self.rows:
            if first is not None and row.runs.first > first:
                yield RunRange(first, row.runs.first - 1)
            first = None if row.runs.last is None else row.runs.last + 1
        if first is not None:
            yield RunRange(first, None)


@dataclass
class Imported:
    """What came of a configuration: tables of ours, and what a person has to know."""

    layer: str = ""
    exp: str = ""
    reducers: dict[str, Draft] = field(default_factory=dict)
    epics: dict[str, dict[str, Any]] = field(default_factory=dict)
    derived: dict[str, dict[str, Any]] = field(default_factory=dict)
    integrating: dict[str, dict[str, Any]] = field(default_factory=dict)
    sums: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not any(r.lost for r in self.remarks)

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """Detectors that reducers and sums ask for."""
        names = dict.fromkeys([*(d.detector for d in self.reducers.values()), *self.sums])
        return {name: {"detector": name, "field": "raw"} for name in names}


def translate(text: str, name: str, exp: str = "") -> Imported:
    """Read the ``text`` of ``prod_config_<hutch>.py``; ``ValueError`` where it is no Python."""
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text):,} characters; a configuration has at most {LONGEST:,}")
    module = Module(text)
    said = exp[:3] or re.sub(r"^prod_config_", "", name)  # such as xcs, crix, mfx_droplets
    hutches = sorted(p.stem for p in layers.HUTCHES.glob("*.toml"))
    hutch = next((h for h in hutches if h in said), "")
    out = Imported(hutch, exp or f"{hutch or 'exp'}00000")
    if not exp:
        out.remarks.append(Remark(0, "which experiment: set source.exp, or give --exp"))
    for unread in module.unread:
        out.remarks.append(Remark(unread.line, unread.why))
    _lists(module, out)
    for function, rule in RULES.items():
        if function in module.functions:
            _function(module, function, rule, out)
    if "get_intg" in module.functions:
        _integrating(module, out)
    taken = {d.detector: d.argument for d in out.reducers.values() if not d.of}
    for function in (f for f in FUNCTIONS if f in module.functions):
        named = [d for d in _names(module.constants.get("detectors")) if d in out.inputs]
        out.sums, remarks = summed(module, function, named or [*out.inputs], taken)
        out.remarks += remarks
    for function, node in module.functions.items():
        known = (*RULES, *FUNCTIONS, "get_intg")
        if re.match("get[_A-Z]", function) and function not in known:
            near = problems.nearest(function, known)
            near = f"; {near}" if near.startswith("did") else ""
            out.remarks.append(Remark(node.lineno, f"{function} is not known{near}"))
    _finish(out)
    return out


def _function(module: Module, function: str, rule: Rule, out: Imported) -> None:
    for reading in module.of_runs(function):
        for unread in reading.unread:
            _remark(out, Remark(unread.line, f"{function}: {unread.why}"))
        line = module.functions[function].lineno
        if isinstance(reading.value, Unread):
            _remark(out, Remark(reading.value.line, f"{function}: {reading.value.why}"))
        elif reading.value is None or reading.value == {} or reading.value == []:
            continue
        elif rule.make is None:
            _remark(out, Remark(line, f"{function}: {rule.instead}"))
        elif not isinstance(reading.value, Table):
            _remark(out, Remark(line, f"{function} does not give a dict by detector"))
        else:
            table = reading.value
            if rule.flat and is_flat(table):
                table = _unfolded(module, function, table, out)
            for detector, entry in table.items():
                at = table.lines.get(detector, line)
                _entry(function, rule, str(detector), entry, reading, at, out)


def _unfolded(module: Module, function: str, table: Table, out: Imported) -> Table:
    """Parameters by detector, of a table that does not have detectors."""
    line = module.functions[function].lineno
    listed = (module.constants.get(name) for name in ("detectors", "detnames"))
    named = [*dict.fromkeys(d for names in listed for d in _names(names))]
    found = by_detector(table, named if len(named) == 1 else [])
    if found:
        text = (
            "give phiBins, Pplane, qbin, userMask as they stood where azimuthalBinning was called"
        )
        names = f"{', '.join(found)}: a detector, if this is its name"
        _remark(out, Remark(line, f"{function}: {names}; {text}", lost=False))
    else:
        text = "does not say of which detector; write {'DETECTOR': {...}}"
        _remark(out, Remark(line, f"{function}: {text}"))
    return found


def _entry(
    function: str, rule: Rule, detector: str, entry: Any, reading: Reading, line: int, out: Imported
) -> None:
    assert rule.make is not None
    several, as_before = entry if isinstance(entry, list) else [entry], True
    if rule.many and (found := [*_regions(several)]) != several:
        as_before, several, entry = not isinstance(entry, list), found, found
    for i, one in enumerate(several):
        where = f"{function} of {detector}" + (f"[{i}]" if isinstance(entry, list) else "")
        if not as_before:
            text = "ROIs of a region had no effect: it was the whole detector"
            _remark(out, Remark(line, f"{where}: {text}", lost=False))
        if isinstance(one, Unread):
            _remark(out, Remark(one.line, f"{where}: {one.why}"))
            continue
        if not isinstance(one, Table):
            _remark(out, Remark(line, f"{where}: not a dict of parameters: {one!r}"))
            continue
        if (
            rule.many
            and all(isinstance(v, list | tuple) for v in one.values())
            and "ROI" not in one
        ):
            text = "pieces of waveforms are not kept; write `waveform_integral` with their gates"
            _remark(out, Remark(line, f"{where}: {text}"))
            continue
        remarks: list[Remark] = []
        line = min(one.lines.values(), default=line)
        given = Given(where, Table(one), line, remarks)
        given.table.lines = one.lines
        if rule.many:
            given.table.setdefault("name", f"ROI_{i}")
        try:
            made = [*rule.make(given)]
        except (TypeError, ValueError, ArithmeticError) as e:
            remarks.append(Remark(line, f"{where}: values that do not fit: {e}"))
            made = []
        given.end()
        for remark in remarks:
            _remark(out, remark)
        named = given.table.get("name")
        for m in made:
            if isinstance(named, str) and not rule.many and len(made) == 1:
                m = m._replace(name=named)
            _add(out, detector, m, RunRange(reading.first, reading.last), line, where)


def _regions(entries: list[Any]) -> Iterator[Any]:
    """Entries of regions; of one that lists several as ``ROIs``, as LCLS-I had it, one for each."""
    for entry in entries:
        listed = entry.get("ROIs") if isinstance(entry, Table) and "ROI" not in entry else None
        if not isinstance(entry, Table) or not isinstance(listed, list | tuple):
            yield entry
            continue
        for region in listed:
            one = Table({"ROI" if k == "ROIs" else k: v for k, v in entry.items()})
            one["ROI"] = region
            one.lines = {"ROI" if k == "ROIs" else k: v for k, v in entry.lines.items()}
            yield one


def _add(out: Imported, detector: str, made: Made, runs: RunRange, line: int, where: str) -> None:
    declared = resolve.reducer(made.use, Path()).params
    if wrong := problems.of_parameters(declared, made.params):
        for problem in wrong:
            _remark(out, Remark(line, f"{where}: {problem}"))
        return
    name = f"{detector}/{made.name}"
    draft = out.reducers.setdefault(name, Draft(detector, made.use, made.argument, made.of))
    if draft.use != made.use:
        _remark(out, Remark(line, f"{where}: was {draft.use} for other runs; write it by itself"))
        return
    if any(overlaps([runs, *(row.runs for row in draft.rows)])):
        _remark(out, Remark(line, f"{where}: {name} is there already; give it a `name` of its own"))
        return
    draft.add(Row(runs, made.params, line))


def _integrating(module: Module, out: Imported) -> None:
    """The slow camera and its companions; the same for all runs."""
    first, *others = module.of_runs("get_intg")
    line, found = module.functions["get_intg"].lineno, first.value
    names = [name for name in _names(found) if name]
    if others:
        _remark(out, Remark(line, f"get_intg: runs from {others[0].first} on have others"))
    if not names and not _nothing(found):
        why = found.why if isinstance(found, Unread) else f"not names of detectors: {found!r}"
        _remark(out, Remark(line, f"get_intg: {why}"))
    out.integrating = {name: {} for name in names}


def _nothing(found: Any) -> bool:
    """Whether there is no name at all, however that is written."""
    return found in (None, "") or (isinstance(found, list | tuple) and all(map(_nothing, found)))


def _names(found: Any) -> Iterator[str]:
    """Texts in a list of lists."""
    if isinstance(found, str):
        yield found
    for item in _listed(found):
        yield from _names(item)


def _lists(module: Module, out: Imported) -> None:
    for name, instead in _LISTS.items():
        found, line = module.constants.get(name), module.lines.get(name, 0)
        if isinstance(found, Unread):
            out.remarks.append(Remark(found.line, f"{name}: {found.why}"))
        elif found and instead:
            out.remarks.append(Remark(line, f"{name}: {instead}"))
    for name, group in (("epicsArchFilePV", "epicsUser"), ("epicsOncePV", "epicsOnce")):
        for entry in _listed(module.constants.get(name)):
            line = module.lines.get(name, 0)
            pv, alias = (
                entry if isinstance(entry, tuple | list) and len(entry) == 2 else (entry,) * 2
            )
            if not isinstance(pv, str) or not isinstance(alias, str):
                out.remarks.append(Remark(line, f"{name}: not the name of a variable: {entry!r}"))
                continue
            key = alias.replace(":", "_").replace(".", "_")
            more = {"group": group} if group != "epicsUser" else {}
            out.epics[key] = {**({"pv": pv} if pv != key else {}), **more}
        if out.epics and group == "epicsOnce" and _listed(module.constants.get(name)):
            text = f"{name}: these are recorded with every shot, not once"
            out.remarks.append(Remark(module.lines.get(name, 0), text, lost=False))
    calib = _listed(module.constants.get("ttCalib"))
    if calib and all(isinstance(c, int | float) for c in calib):
        terms = ", ".join(f"{float(c)!r}" for c in calib)
        text = "ttCalib: where there is no fit it is missing, not 0; it asks for tt/fltpos"
        out.remarks.append(Remark(module.lines.get("ttCalib", 0), text, lost=not out.layer))
        if out.layer:
            expr = f"where(tt.fltpos > 0, polyval(tt.fltpos, [{terms}]), nan)"
            out.derived["tt/ttCorr"] = {"expr": expr, "unit": "ps", "doc": "time-tool correction"}


def _listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else []


def _finish(out: Imported) -> None:
    """Remark on runs for which a reducer has no parameters."""
    for name, draft in out.reducers.items():
        draft.rows.sort(key=lambda row: row.runs.first)
        if gaps := ", ".join(str(g) for g in draft.gaps()):
            text = f"{name}: runs {gaps} have none; ffb refuses runs without parameters"
            out.remarks.append(Remark(draft.rows[0].line, text))
    out.remarks.sort()


def _remark(out: Imported, remark: Remark) -> None:
    if remark not in out.remarks:
        out.remarks.append(remark)
