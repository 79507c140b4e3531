"""What the bar says of the data: which run, complete or not, fresh or not, and in what light."""

from __future__ import annotations

from ffb.dashboards.card import BAD, GOOD, QUIET, WARN, Card, Meta
from ffb.dashboards.model import Snapshot
from ffb.health import duration

#: Below this share of recent shots a reducer's input is called missing; below the second, gone.
PRESENT, GONE = 0.95, 0.5

#: More than this share of shots lost is bad, not only worth a look.
MANY = 0.01

#: What the aggregator calls it when producers said that the run is over.
NORMAL_END = "end of run"


def run(m: Meta, doing: str) -> Card:
    """Which run it is, whether it is on, and of which commit and epoch the page is."""
    detail = f"commit {m['commit']:,}"
    if m["epoch"]:
        detail += f", epoch {m['epoch']} since row {m['span'][0]:,}"
    if not m["ended"]:
        return Card(m["exp"], f"run {m['run']} recording", doing or detail, GOOD)
    why = m.get("reason") or NORMAL_END
    state = QUIET if why == NORMAL_END else WARN
    return Card(m["exp"], f"run {m['run']} ended", doing or f"{why}, {detail}", state)


def shots(m: Meta) -> Card:
    """The books: what was read is written, or lost with a reason, or on its way."""
    read, written, lost = m["read"], m["written"], sum(m["lost"].values())
    flight = read - written - lost
    detail = f"{written:,} written of {read:,} read"
    if flight < 0 or (m["ended"] and flight):
        return Card("shots", f"{abs(flight):,} UNACCOUNTED", detail, BAD)
    if m["balance"]:
        return Card("shots", "BOOKS DO NOT BALANCE", m["balance"], BAD)
    detail += f", {flight:,} in flight" if flight else ""
    detail += f", {m['late']:,} late" if m["late"] else ""
    detail += f", {m['duplicates']:,} twice" if m["duplicates"] else ""
    odd = m["late"] or m["duplicates"]
    if not lost:
        return Card("shots", "none lost", f"{detail}; books balance", WARN if odd else GOOD)
    share = lost / read
    why = ", ".join(f"{n:,} {reason}" for reason, n in m["lost"].items() if n)
    value = f"{lost:,} lost, {100 * share:.2g} %"
    state = BAD if share > MANY else WARN
    return Card("shots", value, f"{why}; {detail}; books balance", state)


def unseen(m: Meta) -> Card | None:
    """What the DAQ made and nobody was offered: an estimate, and no part of the books."""
    if not m["not_seen"]:
        return None
    share = m["not_seen"] / (m["not_seen"] + m["read"])
    value = f"≈ {m['not_seen']:,}, {100 * share:.2g} %"
    return Card("never offered to us", value, "estimated from pulse ids", QUIET)


def fresh(snapshot: Snapshot) -> Card:
    """How old the newest row is, and of how many rows the plots are."""
    m, age = snapshot.meta, snapshot.age_s
    shown, (first, _) = m["shown"], m["span"]
    detail, state = f"{shown:,} rows in the plots", GOOD
    if first:
        detail += f" since row {first:,}: a new epoch"
    if m["filling"]:
        detail, state = f"plots are filled from the file: {shown:,} rows so far", WARN
    elif shown < m["written"] - first:
        detail, state = f"plots of {shown:,} of {m['written'] - first:,} rows", WARN
    if m["ended"]:
        return Card("data", "final", detail, QUIET if state == GOOD else state)
    if age != age:
        return Card("data", "none yet", "no row has been committed", QUIET)
    if snapshot.stale:
        return Card("data", f"STALE {duration(age)}", f"no new shot; {detail}", BAD)
    return Card("data", f"live, {duration(age)} old", detail, state)


def inputs(m: Meta) -> Card:
    """Which detector is missing most often of late."""
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


def step(snapshot: Snapshot) -> Card:
    """Which step of the scan it is, and where the motors are."""
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


def light(m: Meta) -> Card:
    """How many shots have the laser on."""
    of = m["light"]
    known, unknown, dark = of["on"] + of["off"], of["unknown"], of["no x-rays"]
    if not known:
        return Card("laser", "unknown", "no event code tells on from off", QUIET)
    left = f"{dark:,} without x-rays left out"
    if unknown:
        left = f"{unknown:,} unknown, {left}"
    state = WARN if unknown > PRESENT * known / 10 else QUIET
    return Card("laser on", f"{100 * of['on'] / known:.1f} % of shots", left, state)
