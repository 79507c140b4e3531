"""The live table in the terminal: the same snapshot the page shows, in ten lines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ffb.supervise import Child


def rows(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """What a snapshot says, as pairs of heading and value."""
    status = meta["status"]
    producers = status.get("producers", {}).values()
    read, reduced = (sum(p.get(k, 0.0) for p in producers) for k in ("read_hz", "reduced_hz"))
    lost = sum(meta["lost"].values())
    flight = meta["read"] - meta["written"] - lost
    why = ", ".join(f"{n:,} {reason}" for reason, n in meta["lost"].items() if n)
    p50, p95 = status.get("latency_ms", (float("nan"),) * 2)
    file = status.get("file", {})
    state = "ended" if meta["ended"] else "recording"
    step = f", step {meta['step']}" if meta["step"] >= 0 else ""
    alarms = status.get("alarms") or []
    return [
        ("run", f"{meta['exp']} run {meta['run']} {state}{step}"),
        ("rates", f"read {read:.0f}  reduced {reduced:.0f}  written {status['written_hz']:.0f} Hz"),
        ("shots", f"read {meta['read']:,}  written {meta['written']:,}  in flight {flight:,}"),
        ("lost", f"{lost:,}" + (f" ({why})" if why else "")),
        ("shot to file", f"p50 {p50:.0f} ms  p95 {p95:.0f} ms"),
        ("file", f"{file.get('bytes', 0) / 1e6:.1f} MB  {file.get('path', '')}"),
        *[("alarm", str(a)) for a in alarms],
    ]


def table(meta: dict[str, Any] | None, children: Sequence[Child], page: str, since: float) -> Table:
    """A table for the terminal; ``since`` is a monotonic time [s]."""
    out = Table(
        title=f"ffb  {time.monotonic() - since:.0f} s", title_justify="left", show_header=False
    )
    out.add_column(style="bold", no_wrap=True)
    out.add_column()
    for heading, value in rows(meta) if meta and meta["exp"] else [("run", line(meta))]:
        style = "red" if heading == "alarm" else None
        out.add_row(heading, value, style=style)
    alive = sum(c.alive for c in children)
    restarts = sum(c.restarts for c in children)
    out.add_row("processes", f"{alive} running, {restarts} restarts")
    if page:
        out.add_row("page", page)
    return out


def line(meta: dict[str, Any] | None) -> str:
    """The same on one line, for a log."""
    if not meta or not meta["exp"]:
        return _waiting(meta)
    return "  |  ".join(f"{value}" for heading, value in rows(meta) if heading != "file")


def _waiting(meta: dict[str, Any] | None) -> str:
    """What there is to wait for before the first rows."""
    producers = meta["status"].get("producers", {}) if meta else {}
    doing = [f"{name} {said['doing']}" for name, said in producers.items() if said.get("doing")]
    return ", ".join(doing) or "waiting for the stream"
