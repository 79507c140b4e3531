"""The bar at the top: whether the data are good, complete and meaningful, in five seconds."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffb.dashboards.model import Snapshot

GOOD, WARN, BAD, QUIET = "good", "warn", "bad", "quiet"

#: Below this share of recent shots a reducer's input is called missing; below the second, gone.
PRESENT, GONE = 0.95, 0.5

#: More than this share of shots lost is bad, not only worth a look.
MANY = 0.01

#: Disk space is worth a word when it lasts less than this [s], or below so many bytes.
LASTS_S, LOW_BYTES = 3600.0, 5e9

#: Where 95 % of shots take longer than this to file or page [ms], something is behind.
SLOW_MS = 1000.0

#: What the aggregator calls it when producers said that the run is over.
NORMAL_END = "end of run"

#: Styles of the bar's place on the page: it never scrolls away.
STICKY: dict[str, str | None] = {
    "position": "sticky",
    "top": "0",
    "z-index": "100",
    "background": "white",
}
STYLE = """
.bk-clearfix { width: 100%; }
.bar { font: 12px/1.4 system-ui, sans-serif; color: #222; padding: 2px 2px 6px; }
.bar { display: flex; flex-wrap: wrap; gap: 5px 6px; }
.card { border-left: 5px solid; background: #f5f5f5; padding: 3px 9px; flex: 1 1 auto; }
.card b { display: block; font-size: 17px; font-weight: 600; white-space: nowrap; }
.card small { display: block; font-size: 12px; color: #444; white-space: nowrap; }
.line { flex: 1 0 100%; }
.line b, .line small { display: inline; white-space: normal; margin-right: 12px; }
.line b { font-size: 15px; }
.good { border-color: #2a8f4f; } .quiet { border-color: #9e9e9e; }
.warn { border-color: #d98e04; background: #fff3d6; }
.bad { border-color: #c62828; background: #fbdedb; }
"""


@dataclass(frozen=True)
class Card:
    """One statement: a heading, a value with a word, what it rests on, and how bad it is.

    A ``line`` takes the whole width, for sentences.
    """

    title: str
    value: str
    detail: str
    state: str
    line: bool = False


Meta = Mapping[str, Any]


def cards(snapshot: Snapshot | None, page_ms: Sequence[float] = (math.nan, math.nan)) -> list[Card]:
    """What the bar says about ``snapshot``; ``page_ms`` is 50 and 95 % of shot to page."""
    if snapshot is None:
        return [Card("ffb", "waiting", "no word from the aggregator: is it running?", QUIET)]
    m, status = snapshot.meta, snapshot.meta["status"]
    alarms = [Card("", "ALARM", str(a), BAD, line=True) for a in status.get("alarms") or ()]
    if not m["exp"]:
        doing = _doing(status) or "no producer has reported"
        return [*alarms, Card("ffb", "no run yet", doing, QUIET), _producers(status, ended=False)]
    notes = [n for p in _named(status).values() for n in p.get("notes") or ()]
    return [
        *alarms,
        _run(m, status),
        _shots(m),
        _fresh(snapshot),
        _inputs(m),
        _rates(m, status),
        _latency(status, page_ms),
        _step(snapshot),
        _light(m),
        _file(m, status),
        _producers(status, ended=m["ended"]),
        *(Card("", "note", str(n), QUIET, line=True) for n in dict.fromkeys(notes)),
    ]


def _named(status: Meta) -> Mapping[str, Meta]:
    found: Mapping[str, Meta] = status.get("producers", {})
    return found


def _doing(status: Meta) -> str:
    """What producers are at that are not reducing, ``""`` when all are."""
    found = [str(p.get("doing", "")) for p in _named(status).values() if p.get("alive", True)]
    return ", ".join(dict.fromkeys(d for d in found if d not in ("", "reducing")))


def _run(m: Meta, status: Meta) -> Card:
    doing = _doing(status)
    detail = f"commit {m['commit']:,}"
    if not m["ended"]:
        return Card(m["exp"], f"run {m['run']} recording", doing or detail, GOOD)
    why = m.get("reason") or NORMAL_END
    state = QUIET if why == NORMAL_END else WARN
    return Card(m["exp"], f"run {m['run']} ended", doing or f"{why}, {detail}", state)


def _shots(m: Meta) -> Card:
    """The books: what was read is written, or lost with a reason, or on its way."""
    read, written, lost = m["read"], m["written"], sum(m["lost"].values())
    flight = read - written - lost
    detail = f"{written:,} written of {read:,} read"
    if flight < 0 or (m["ended"] and flight):
        return Card("shots", f"{abs(flight):,} UNACCOUNTED", detail, BAD)
    detail += f", {flight:,} in flight" if flight else ""
    detail += f", {m['late']:,} late" if m["late"] else ""
    if not lost:
        return Card("shots", "none lost", detail, WARN if m["late"] else GOOD)
    share = lost / read
    why = ", ".join(f"{n:,} {reason}" for reason, n in m["lost"].items() if n)
    value = f"{lost:,} lost, {100 * share:.2g} %"
    return Card("shots", value, f"{why}; {detail}", BAD if share > MANY else WARN)


def _fresh(snapshot: Snapshot) -> Card:
    m, age = snapshot.meta, snapshot.age_s
    shown, written = m["shown"], m["written"]
    detail, state = f"{shown:,} rows in the plots", GOOD
    if shown < written:
        detail, state = f"plots since a restart: {shown:,} of {written:,} rows", WARN
    if m["ended"]:
        return Card("data", "final", detail, QUIET if state == GOOD else state)
    if age != age:
        return Card("data", "none yet", "no row has been committed", QUIET)
    if snapshot.stale:
        return Card("data", f"STALE {duration(age)}", f"no new shot; {detail}", BAD)
    return Card("data", f"live, {duration(age)} old", detail, state)


def _inputs(m: Meta) -> Card:
    recent = {name: (p[2] / p[3] if p[3] else 1.0) for name, p in m["present"].items()}
    if not recent:
        return Card("detectors", "none", "only recorded inputs", QUIET)
    worst = min(recent, key=lambda k: recent[k])
    share, (present, rows, *_) = recent[worst], m["present"][worst]
    state = GOOD if share >= PRESENT else WARN if share >= GONE else BAD
    word = "present" if state == GOOD else "MISSING"
    value = f"{100 * share:.1f} % present" if state == GOOD else f"{100 * (1 - share):.1f} % {word}"
    overall = f"{100 * present / rows:.1f} %" if rows else "no"
    return Card("detectors, last 10 s", value, f"least: {worst}, {overall} of the run", state)


def _rates(m: Meta, status: Meta) -> Card:
    said = [p for p in _named(status).values() if p.get("alive", True)]
    read = sum(p.get("read_hz", 0.0) for p in said)
    reduced = sum(p.get("reduced_hz", 0.0) for p in said)
    value = f"{read:.0f} | {reduced:.0f} | {status.get('written_hz', 0.0):.0f} Hz"
    return Card("rates", value, "read | reduced | written", QUIET)


def _latency(status: Meta, page_ms: Sequence[float]) -> Card:
    file_ms = status.get("latency_ms", (math.nan, math.nan))
    (p50, p95), (q50, q95) = ([_ms(v) for v in pair] for pair in (file_ms, page_ms))
    slow = any(pair[1] > SLOW_MS for pair in (file_ms, page_ms))
    state = WARN if slow else QUIET if p50 == "–" else GOOD
    return Card("shot to file | page", f"{p50} | {q50} ms", f"95 % within {p95} | {q95} ms", state)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value == value else "–"


def _step(snapshot: Snapshot) -> Card:
    m = snapshot.meta
    if m["step"] < 0:
        return Card("step", "none", "no step has begun", QUIET)
    units = {c.name: f" {c.unit}" if c.unit != "1" else "" for c in snapshot.scalars.values()}
    at = [
        f"{name} {value:.5g}{units.get(f'scan/{name}', '')}"
        for name, value in m["now"].items()
        if name != "step_value"
    ]
    return Card("step", f"{m['step']}", ", ".join(at[:2]) or "no motor", QUIET)


def _light(m: Meta) -> Card:
    light = m["light"]
    known, unknown, dark = light["on"] + light["off"], light["unknown"], light["no x-rays"]
    if not known:
        return Card("laser", "unknown", "no event code tells on from off", QUIET)
    left = f"{dark:,} without x-rays left out"
    if unknown:
        left = f"{unknown:,} unknown, {left}"
    state = WARN if unknown > PRESENT * known / 10 else QUIET
    return Card("laser on", f"{100 * light['on'] / known:.1f} % of shots", left, state)


def _file(m: Meta, status: Meta) -> Card:
    file = status.get("file", {})
    if not file.get("path"):
        return Card("file", "none", "nothing is being written", WARN)
    growth, free = file.get("bytes_hz", 0.0), file.get("free", math.inf)
    detail, state = f"{file.get('bytes', 0) / 1e6:,.1f} MB, +{growth / 1e6:.2f} MB/s", GOOD
    if m["ended"]:
        detail, state = f"{file.get('bytes', 0) / 1e6:,.1f} MB", QUIET
    if free < max(LOW_BYTES, growth * LASTS_S):
        left = f", lasts {duration(free / growth)}" if growth > 0 else ""
        return Card("disk", f"{free / 1e9:.1f} GB free", f"{detail}{left}", BAD)
    name = str(file["path"]).rsplit("/", 1)[-1]
    return Card("file", name, detail, state)


def _producers(status: Meta, *, ended: bool) -> Card:
    producers = _named(status)
    silent = [name for name, p in producers.items() if not p.get("alive", True)]
    errors: dict[str, int] = {}
    for p in producers.values():
        for what, n in p.get("errors", {}).items():
            errors[what] = errors.get(what, 0) + n
    value = f"{len(producers) - len(silent)} of {len(producers)} alive"
    detail, state = "no reducer error", GOOD if producers else QUIET
    if errors:
        worst = max(errors, key=lambda k: errors[k])
        detail, state = f"{sum(errors.values()):,} reducer errors: {worst}", WARN
    if silent:
        detail, state = f"silent: {', '.join(silent)}", QUIET if ended else BAD
    return Card("producers", value, detail, state)


def duration(seconds: float) -> str:
    """A time as people say it: 0.3 s, 42 s, 7 min, 3.5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def render(snapshot: Snapshot | None, page_ms: Sequence[float] = (math.nan, math.nan)) -> str:
    """The bar as HTML; a state is a colour and a word, never a colour alone."""
    mark = {GOOD: "", QUIET: "", WARN: "⚠ ", BAD: "✖ "}
    body = "".join(
        f'<div class="card {c.state}{" line" * c.line}"><small>{html.escape(c.title)}</small>'
        f"<b>{mark[c.state]}{html.escape(c.value)}</b><small>{html.escape(c.detail)}</small></div>"
        for c in cards(snapshot, page_ms)
    )
    return f'<div class="bar">{body}</div>'
