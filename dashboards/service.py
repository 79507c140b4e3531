"""What the bar says of the service: rates, delays, queues, the file, and who is alive."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from ffb.dashboards.card import BAD, GOOD, QUIET, WARN, Card, Meta
from ffb.health import duration, size

#: Disk space is worth a word when it lasts less than this [s], or below so many bytes.
LASTS_S, LOW_BYTES = 3600.0, 5e9

#: Where 95 % of shots take longer than this to file or page [ms], something is behind.
SLOW_MS = 1000.0

#: A queue is worth a look from this part of its bound on.
HALF = 0.5

#: So many queues are shown one by one; all others together.
QUEUES = 8

#: A restart is worth a look for so long [s].
RECENT_S = 600.0


def named(status: Meta) -> Mapping[str, Meta]:
    """What every producer says."""
    found: Mapping[str, Meta] = status.get("producers", {})
    return found


def doing(status: Meta) -> str:
    """What producers are at that are not reducing, ``""`` when all are."""
    found = [str(p.get("doing", "")) for p in named(status).values() if p.get("alive", True)]
    return ", ".join(dict.fromkeys(d for d in found if d not in ("", "reducing")))


def rates(status: Meta) -> Card:
    """Shots a second."""
    said = [p for p in named(status).values() if p.get("alive", True)]
    read = sum(p.get("read_hz", 0.0) for p in said)
    reduced = sum(p.get("reduced_hz", 0.0) for p in said)
    value = f"{read:.0f} | {reduced:.0f} | {status.get('written_hz', 0.0):.0f} Hz"
    return Card("rates", value, "read | reduced | written", QUIET)


def latency(status: Meta, page_ms: Sequence[float]) -> Card:
    """Time from a shot reaching us to its row in the file, and on the page."""
    file_ms = status.get("latency_ms", (math.nan, math.nan))
    (p50, p95), (q50, q95) = ([_ms(v) for v in pair] for pair in (file_ms, page_ms))
    slow = any(pair[1] > SLOW_MS for pair in (file_ms, page_ms))
    state = WARN if slow else QUIET if p50 == "–" else GOOD
    return Card("shot to file | page", f"{p50} | {q50} ms", f"95 % within {p95} | {q95} ms", state)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value == value else "–"


def kept(status: Meta) -> Card | None:
    """Shedding: which fraction of shots is kept, by laser; nothing while all of them are."""
    said = [p for p in named(status).values() if p.get("alive", True)]
    fractions = [float(p.get("kept", 1.0)) for p in said]
    if min(fractions, default=1.0) >= 1.0:
        return None
    by: dict[str, list[float]] = {}
    for p in said:
        for _, laser, offered, taken in p.get("strata", ()):
            total = by.setdefault({1: "on", 0: "off"}.get(laser, "unknown"), [0.0, 0.0])
            total[0], total[1] = total[0] + offered, total[1] + taken
    shares = [f"laser {k} {100 * t / n:.0f} %" for k, (n, t) in sorted(by.items()) if n]
    detail = f"of the run: {', '.join(shares)}" if shares else "by hash of the timestamp"
    mean = sum(fractions) / len(fractions)
    return Card("SHEDDING whole shots", f"{100 * mean:.0f} % kept", detail, BAD)


def queues(status: Meta) -> Card:
    """What waits where: bytes now and at most, of how many; the fullest first."""
    told = sorted(status.get("queues", ()), key=lambda q: -_part(q))
    if not told:
        return Card("queues", "–", "nobody has told", QUIET)
    lines = [f"{name} {size(n)}/{size(most)} ↑{size(high)}" for name, n, most, high in told]
    if len(told) > QUEUES:
        lines = [*lines[:QUEUES], f"{len(told) - QUEUES} more, at most {_percent(told[QUEUES])}"]
    part = _part(told[0])
    state = BAD if part >= 1 else WARN if part > HALF else GOOD
    word = {BAD: "FULL", WARN: "filling up", GOOD: "flowing"}[state]
    value = f"{word}, {_percent(told[0])}"
    return Card("queues (now/bound ↑most)", value, " · ".join(lines), state, line=True)


def _part(queue: Sequence[float]) -> float:
    return float(queue[1]) / max(float(queue[2]), 1.0)


def _percent(queue: Sequence[float]) -> str:
    return f"{100 * _part(queue):.0f} %"


def file(m: Meta, status: Meta) -> Card:
    """The file: its size and growth, or why it does not grow."""
    said = status.get("file", {})
    if status.get("held"):
        return Card("file", "NOT WRITTEN", "commits wait; nothing committed is lost", BAD)
    if not said.get("path"):
        return Card("file", "none", "nothing is being written", WARN)
    growth, free = said.get("bytes_hz", 0.0), said.get("free", math.inf)
    parts = said.get("segments", 0)
    detail, state = f"{size(said.get('bytes', 0))}, +{size(growth)}/s", GOOD
    if m["ended"]:
        detail, state = size(said.get("bytes", 0)), QUIET
    if parts:
        word = "being merged" if m["ended"] else "segments" if parts > 1 else "segment"
        detail += f", {parts} {word}"
    if free < max(LOW_BYTES, growth * LASTS_S):
        left = f", lasts {duration(free / growth)}" if growth > 0 else ""
        return Card("disk", f"{free / 1e9:.1f} GB free", f"{detail}{left}", BAD)
    return Card("file", str(said["path"]).rsplit("/", 1)[-1], detail, state)


def producers(status: Meta, *, ended: bool) -> Card:
    """Who reduces, who is silent, and which reducers fail."""
    all_ = named(status)
    silent = [name for name, p in all_.items() if not p.get("alive", True)]
    errors: dict[str, int] = {}
    for p in all_.values():
        for what, n in p.get("errors", {}).items():
            errors[what] = errors.get(what, 0) + n
    value = f"{len(all_) - len(silent)} of {len(all_)} alive"
    detail, state = "no reducer error", GOOD if all_ else QUIET
    if errors:
        worst = max(errors, key=lambda k: errors[k])
        detail, state = f"{sum(errors.values()):,} reducer errors: {worst}", WARN
    if silent:
        detail, state = f"silent: {', '.join(silent)}", QUIET if ended else BAD
    return Card("producers", value, detail, state)


def processes(status: Meta) -> Card | None:
    """What `ffb run` says of the processes it keeps alive; nothing without one."""
    told = status.get("children") or ()
    if not told:
        return None
    up = sum(c["alive"] for c in told)
    value = f"{up} of {len(told)} running"
    gone = [c for c in told if c["gave_up"]]
    down = [c for c in told if not (c["alive"] or c["done"])]
    died = sorted((c for c in told if c["died"]), key=lambda c: -c["died"])
    state = BAD if gone or down else GOOD
    if not died:
        return Card("processes", value, "none was restarted", state)
    last = died[0]
    age = (time.time_ns() - last["died"]) / 1e9
    times = f"restarted {last['restarts']}x" if last["restarts"] else "not restarted"
    times = "given up" if last["gave_up"] else times
    detail = f"{last['name']} {times}, last: {last['why']} {duration(age)} ago"
    detail += f"; and {', '.join(c['name'] for c in died[1:])}" if died[1:] else ""
    return Card("processes", value, detail, WARN if state == GOOD and age < RECENT_S else state)
