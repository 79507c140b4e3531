"""The bar at the top: whether the data are good, complete and meaningful, in five seconds."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from ffb.dashboards import data, service
from ffb.dashboards.card import BAD, GOOD, QUIET, WARN, Card
from ffb.dashboards.model import STALE_S, Snapshot
from ffb.health import duration

#: So many notes have a line each; the bar stays in sight, and must leave room for plots.
NOTES = 2

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


def cards(snapshot: Snapshot | None, page_ms: Sequence[float] = (math.nan, math.nan)) -> list[Card]:
    """What the bar says about ``snapshot``; ``page_ms`` is 50 and 95 % of shot to page."""
    if snapshot is None:
        return [Card("ffb", "waiting", "no word from the aggregator: is it running?", QUIET)]
    m, status = snapshot.meta, snapshot.meta["status"]
    alarms = [Card("", "ALARM", str(a), BAD, line=True) for a in status.get("alarms") or ()]
    if (silence := snapshot.silence_s) > STALE_S:
        since = f"from the aggregator for {duration(silence)}: all of this is as of then"
        alarms.insert(0, Card("", "NO WORD", since, QUIET if m["ended"] else BAD, line=True))
    doing = service.doing(status)
    if not m["exp"]:
        waiting = Card("ffb", "no run yet", doing or "no producer has reported", QUIET)
        of = service.producers(status, ended=False), service.processes(status)
        return [*alarms, waiting, *(c for c in of if c)]
    notes = [n for p in service.named(status).values() for n in p.get("notes") or ()]
    told = [
        data.run(m, doing),
        data.shots(m),
        service.kept(status),
        data.unseen(m),
        data.fresh(snapshot),
        data.inputs(m),
        service.rates(status),
        service.latency(status, page_ms),
        data.step(snapshot),
        data.light(m),
        service.file(m, status),
        service.producers(status, ended=m["ended"]),
        service.processes(status),
        service.queues(status),
    ]
    said = [c for c in told if c]
    quiet = _notes(list(dict.fromkeys(map(str, notes))))
    odd = [Card("", "odd", str(n), WARN, line=True) for n in status.get("notes") or ()]
    return [*alarms, verdict([*alarms, *said, *odd]), *said, *odd, *quiet]


def _notes(notes: Sequence[str]) -> list[Card]:
    """The first few notes in full, so that plots stay in sight; the file has them all."""
    shown = notes if len(notes) <= NOTES + 1 else notes[:NOTES]
    cards = [Card("", "note", note, QUIET, line=True) for note in shown]
    if more := len(notes) - len(shown):
        where = "in the log and in ffb/notes"
        cards.append(Card("", f"{more} more notes", where, QUIET, line=True))
    return cards


def verdict(told: Sequence[Card]) -> Card:
    """All cards in two words: whether there is anything to look at, and where."""
    bad, warn = (
        list(dict.fromkeys(c.title or c.value.lower() for c in told if c.state == state))
        for state in (BAD, WARN)
    )
    if bad:
        return Card("verdict", "BAD", f"because of {', '.join(bad)}", BAD)
    if warn:
        return Card("verdict", "LOOK", f"at {', '.join(warn)}", WARN)
    return Card("verdict", "ALL WELL", "good, complete, meaningful", GOOD)


def render(snapshot: Snapshot | None, page_ms: Sequence[float] = (math.nan, math.nan)) -> str:
    """The bar as HTML; a state is a colour and a word, never a colour alone."""
    mark = {GOOD: "", QUIET: "", WARN: "⚠ ", BAD: "✖ "}
    body = "".join(
        f'<div class="card {c.state}{" line" * c.line}"><small>{html.escape(c.title)}</small>'
        f"<b>{mark[c.state]}{html.escape(c.value)}</b><small>{html.escape(c.detail)}</small></div>"
        for c in cards(snapshot, page_ms)
    )
    return f'<div class="bar">{body}</div>'
