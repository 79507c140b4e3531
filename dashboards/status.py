"""The bar at the top: whether the data are good, complete and meaningful, in five seconds."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from ffb.dashboards.model import Snapshot

GOOD, WARN, BAD, QUIET = "good", "warn", "bad", "quiet"

#: Below this share of shots a reducer's input is called missing on the bar.
PRESENT = 0.95

#: A live stream whose newest row is older than this is called stale.
FRESH_S = 2.0

STYLE = """
.bar { font: 14px/1.5 system-ui, sans-serif; color: #222; }
.bar { display: flex; flex-wrap: wrap; gap: 6px 10px; }
.card { border-left: 6px solid #999; background: #f5f5f5; padding: 4px 12px; min-width: 120px; }
.card b { display: block; font-size: 20px; font-weight: 600; white-space: nowrap; }
.card small { color: #555; white-space: nowrap; }
.good { border-color: #2a8f4f; } .warn { border-color: #d98e04; background: #fff6e0; }
.bad { border-color: #c62828; background: #fdecea; } .quiet { border-color: #9e9e9e; }
"""


@dataclass(frozen=True)
class Card:
    """One statement: a heading, a value with a word, what it rests on, and how bad it is."""

    title: str
    value: str
    detail: str
    state: str


def cards(snapshot: Snapshot | None) -> list[Card]:
    """What the bar says about ``snapshot``, most important first."""
    if snapshot is None:
        return [Card("ffb", "waiting", "no word from the aggregator yet", QUIET)]
    if not snapshot.meta["exp"]:
        return [Card("ffb", "waiting", "the aggregator is up; no run has begun", QUIET)]
    m, status = snapshot.meta, snapshot.meta["status"]
    return [
        _run(m, status),
        _books(m),
        _fresh(snapshot),
        _inputs(m),
        _rates(m, status),
        _latency(status),
        _step(snapshot),
        _light(m),
        _file(status),
        _producers(status),
    ]


def _run(m: dict[str, Any], status: dict[str, Any]) -> Card:
    alarms = status.get("alarms") or []
    if alarms:
        return Card(f"{m['exp']} run {m['run']}", "ALARM", str(alarms[0]), BAD)
    word = "ended" if m["ended"] else "recording"
    return Card(f"{m['exp']}", f"run {m['run']} {word}", f"commit {m['commit']:,}", GOOD)


def _books(m: dict[str, Any]) -> Card:
    read, written, lost = m["read"], m["written"], sum(m["lost"].values())
    accounted = 100.0 * (written + lost) / read if read else 100.0
    why = ", ".join(f"{n:,} {reason}" for reason, n in m["lost"].items() if n) or "none lost"
    flight = read - written - lost
    detail = f"{why}; {flight:,} in flight" if flight > 0 and not m["ended"] else why
    state = GOOD
    if lost or m["late"]:
        state = WARN
    if flight < 0 or (m["ended"] and flight):
        state = BAD
    return Card("accounted", f"{accounted:.2f} %", detail, state)


def _fresh(snapshot: Snapshot) -> Card:
    age = snapshot.age_s
    if snapshot.meta["ended"]:
        return Card("data", "run ended", f"{snapshot.meta['written']:,} rows", QUIET)
    if age != age:
        return Card("data", "none yet", "no row has been committed", QUIET)
    word, state = ("live", GOOD) if age < FRESH_S else ("stale", BAD)
    return Card("data", f"{word} {age:.1f} s", f"{snapshot.meta['written']:,} rows", state)


def _inputs(m: dict[str, Any]) -> Card:
    shares = {name: (a / b if b else 1.0) for name, (a, b) in m["present"].items()}
    if not shares:
        return Card("reducers", "none", "only recorded inputs", QUIET)
    worst = min(shares, key=lambda k: shares[k])
    state = GOOD if shares[worst] >= PRESENT else WARN
    return Card("reducers", f"{100 * shares[worst]:.1f} % present", f"least: {worst}", state)


def _rates(m: dict[str, Any], status: dict[str, Any]) -> Card:
    producers = status.get("producers", {}).values()
    read = sum(p.get("read_hz", 0.0) for p in producers)
    reduced = sum(p.get("reduced_hz", 0.0) for p in producers)
    written = status.get("written_hz", 0.0)
    return Card(
        "read | reduced | written",
        f"{read:.0f} | {reduced:.0f} | {written:.0f} Hz",
        "per second",
        QUIET,
    )


def _latency(status: dict[str, Any]) -> Card:
    p50, p95 = status.get("latency_ms", (float("nan"),) * 2)
    state = QUIET if p95 != p95 else GOOD if p95 < 1000 else WARN
    return Card("shot to file", f"{p50:.0f} ms", f"95 % within {p95:.0f} ms", state)


def _step(snapshot: Snapshot) -> Card:
    m = snapshot.meta
    if m["step"] < 0:
        return Card("step", "none", "no step has begun", QUIET)
    at = [
        f"{name} {snapshot.arrays[f'scan.{name}'][-1]:g}"
        for name in m["motors"]
        if name != "step_value" and snapshot.arrays[f"scan.{name}"].size
    ]
    return Card("step", f"{m['step'] + 1}", ", ".join(at[:2]) or "no motor", QUIET)


def _light(m: dict[str, Any]) -> Card:
    light = m["light"]
    known = light["on"] + light["off"]
    if not known:
        return Card("laser", "unknown", "no event code says", QUIET)
    share = 100.0 * light["on"] / known
    dark = light["no x-rays"]
    return Card("laser on", f"{share:.1f} %", f"{dark:,} shots without x-rays left out", QUIET)


def _file(status: dict[str, Any]) -> Card:
    file = status.get("file", {})
    if not file.get("path"):
        return Card("file", "none", "nothing is being written", WARN)
    size, growth = file.get("bytes", 0) / 1e6, file.get("bytes_hz", 0.0) / 1e6
    name = str(file["path"]).rsplit("/", 1)[-1]
    return Card(name, f"{size:.1f} MB", f"+{growth:.2f} MB/s", GOOD)


def _producers(status: dict[str, Any]) -> Card:
    producers = status.get("producers", {})
    errors = sum(sum(p.get("errors", {}).values()) for p in producers.values())
    alive = sum(bool(p.get("alive", True)) for p in producers.values())
    state = GOOD if producers and alive == len(producers) and not errors else WARN
    detail = f"{errors:,} reducer errors" if errors else "no reducer error"
    return Card("producers", f"{alive}/{len(producers)}", detail, state)


def render(snapshot: Snapshot | None) -> str:
    """The bar as HTML; a state is a colour and a word, never a colour alone."""
    mark = {GOOD: "", QUIET: "", WARN: "⚠ ", BAD: "✖ "}
    body = "".join(
        f'<div class="card {c.state}"><small>{html.escape(c.title)}</small>'
        f"<b>{mark[c.state]}{html.escape(c.value)}</b><small>{html.escape(c.detail)}</small></div>"
        for c in cards(snapshot)
    )
    return f'<div class="bar">{body}</div>'
