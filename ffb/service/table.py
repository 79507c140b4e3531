"""The live table in the terminal: the same snapshot the page shows, in a dozen lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

from ffb.health import duration, size
from ffb.supervise import Child

#: A queue is worth a look from this part of its bound on.
HALF = 0.5


class Line(NamedTuple):
    """A heading, what is to be said, and the colour it is said in."""

    heading: str
    value: str
    style: str = ""


def rows(meta: dict[str, Any] | None) -> list[Line]:
    """What a snapshot says, line by line; of no run yet, what is waited for and what is wrong."""
    status = meta["status"] if meta else {}
    alarms = [Line("alarm", str(a), "red") for a in status.get("alarms") or []]
    if not meta or not meta["exp"]:
        return [Line("run", _waiting(status)), *alarms]
    producers = status.get("producers", {}).values()
    read, reduced = (sum(p.get(k, 0.0) for p in producers) for k in ("read_hz", "reduced_hz"))
    p50, p95 = status.get("latency_ms", (float("nan"),) * 2)
    file = status.get("file", {})
    state = "ended" if meta["ended"] else "recording"
    step = f", step {meta['step']}" if meta["step"] >= 0 else ""
    epoch = f", epoch {meta['epoch']} since row {meta['span'][0]:,}" if meta["epoch"] else ""
    parts = f", {file['segments']} segments" if file.get("segments") else ""
    return [
        Line("run", f"{meta['exp']} run {meta['run']} {state}{step}{epoch}"),
        Line(
            "rates",
            f"read {read:.0f}  reduced {reduced:.0f}  written {status['written_hz']:.0f} Hz",
        ),
        *_books(meta),
        *_kept([float(p.get("kept", 1.0)) for p in producers]),
        Line("shot to file", f"p50 {p50:.0f} ms  p95 {p95:.0f} ms"),
        Line("file", f"{size(file.get('bytes', 0))}{parts}  {file.get('path', '')}"),
        *_queues(status.get("queues") or []),
        *alarms,
    ]


def _books(meta: dict[str, Any]) -> list[Line]:
    """Read, written, lost, late and twice; and apart from them what was never offered."""
    lost = sum(meta["lost"].values())
    flight = meta["read"] - meta["written"] - lost
    why = ", ".join(f"{n:,} {reason}" for reason, n in meta["lost"].items() if n)
    said = f"read {meta['read']:,}  written {meta['written']:,}  in flight {flight:,}"
    odd = [f"{meta[k]:,} {word}" for k, word in (("late", "late"), ("duplicates", "twice"))]
    said += "".join(f"  {o}" for o in odd if not o.startswith("0 "))
    out = [
        Line("shots", said),
        Line("lost", f"{lost:,}" + (f" ({why})" if why else ""), "yellow" if lost else ""),
    ]
    if meta["balance"]:
        out.append(Line("books", f"DO NOT BALANCE: {meta['balance']}", "red"))
    if meta["not_seen"]:
        out.append(Line("not offered", f"about {meta['not_seen']:,}, estimated from pulse ids"))
    return out


def _kept(fractions: Sequence[float]) -> list[Line]:
    if min(fractions, default=1.0) >= 1.0:
        return []
    mean = sum(fractions) / len(fractions)
    return [Line("kept", f"{100 * mean:.0f} % of shots: SHEDDING", "red")]


def _queues(told: Sequence[Sequence[Any]]) -> list[Line]:
    """Every queue: bytes now, how many may wait, and the most there ever were."""
    out = []
    for name, waits, bound, high in told:
        part = waits / max(bound, 1)
        style = "red" if part >= 1 else "yellow" if part > HALF else ""
        out.append(Line(str(name), f"{size(waits)} of {size(bound)}, most {size(high)}", style))
    return out


def table(meta: dict[str, Any] | None, children: Sequence[Child], page: str, since: float) -> Table:
    """A table for the terminal; ``since`` is a monotonic time [s]."""
    out = Table(
        title=f"ffb  {time.monotonic() - since:.0f} s", title_justify="left", show_header=False
    )
    out.add_column(style="bold", no_wrap=True)
    out.add_column()
    for said in rows(meta):
        out.add_row(said.heading, said.value, style=said.style or None)
    for said in processes(children):
        out.add_row(said.heading, said.value, style=said.style or None)
    if page:
        out.add_row("page", page)
    return out


def processes(children: Sequence[Child]) -> list[Line]:
    """How many children run, and of each that died how often and why it did."""
    alive, restarts = sum(c.alive for c in children), sum(c.restarts for c in children)
    out = [Line("processes", f"{alive} running, {restarts} restarts")]
    for c in children:
        if c.died:
            fate = "GIVEN UP" if c.gave_up else f"restarted {c.restarts}x"
            ago = duration((time.time_ns() - c.died) / 1e9)
            style = "red" if c.gave_up else "yellow"
            out.append(Line(c.name, f"{fate}, last: {c.why} {ago} ago", style))
    return out


def line(meta: dict[str, Any] | None) -> str:
    """The same on one line, for a log: queues only when they fill up."""
    queues = {q[0] for q in meta["status"].get("queues") or []} if meta else set()
    said = [r for r in rows(meta) if r.heading != "file"]
    return "  |  ".join(
        f"{r.heading} {r.value}" if r.heading in {"lost", *queues} else r.value
        for r in said
        if r.heading not in queues or r.style
    )


def _waiting(status: dict[str, Any]) -> str:
    """What there is to wait for before the first rows."""
    producers = status.get("producers", {}).items()
    doing = [f"{name} {said['doing']}" for name, said in producers if said.get("doing")]
    return ", ".join(doing) or "waiting for the stream"
