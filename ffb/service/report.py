"""How the processes of a service are: what they say of themselves, checked, and put together."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ffb.health import Rate
from ffb.reading.contents import FOLDER

#: Name under which `ffb run` says how its children are; no producer has it.
SUPERVISOR = "supervisor"

#: A process that has said nothing for so long is shown as not alive [ns].
SILENT_NS = 3_000_000_000

#: What a process may say, by kind; all else it says is left out. At most so many of each, so long.
NUMBERS = ("pid", "time", "read", "reduced", "read_hz", "reduced_hz", "resent", "kept")
GAUGES = ("in_flight_bytes", "high_water_bytes", "window_bytes")
RING = ("ring_bytes", "ring_high_water_bytes", "ring_size_bytes")
TEXTS, TALLIES, LISTS = ("doing", "alarm"), ("lost", "errors"), ("notes",)
MOST, LONG = 32, 200


class Queue(NamedTuple):
    """Bytes that wait somewhere, how many may, and the most there ever were."""

    name: str
    bytes: int
    bound: int
    high: int


def checked(said: Mapping[Any, Any]) -> dict[str, Any]:
    """What of a status is understood: numbers, texts, tallies and lists of texts, all bounded."""
    out: dict[str, Any] = {}
    for key in (*NUMBERS, *GAUGES, *RING):
        if _number(said.get(key)):
            out[key] = said[key]
    out |= {k: said[k][:LONG] for k in TEXTS if isinstance(said.get(k), str) and said[k]}
    for key in TALLIES:
        tally = said.get(key)
        if isinstance(tally, dict):
            out[key] = {str(k)[:LONG]: v for k, v in [*tally.items()][:MOST] if _number(v)}
    for key in LISTS:
        if isinstance(said.get(key), list):
            out[key] = [str(v)[:LONG] for v in said[key][:MOST]]
    strata = said.get("strata")
    if isinstance(strata, list):
        lines = [s for s in strata[:MOST] if isinstance(s, list) and len(s) == 4]
        out["strata"] = [s for s in lines if all(map(_number, s))]
    return out


def children(said: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """What a supervisor says of its children, as far as it is understood."""
    told = said.get("children")
    lines = [c for c in told[:MOST] if isinstance(c, dict)] if isinstance(told, list) else []
    return [
        {
            "name": str(c.get("name", ""))[:LONG],
            "alive": c.get("alive") is True,
            "done": c.get("done") is True,
            "gave_up": c.get("gave_up") is True,
            "restarts": c["restarts"] if _number(c.get("restarts")) else 0,
            "died": c["died"] if _number(c.get("died")) else 0,
            "why": str(c.get("why", ""))[:LONG],
        }
        for c in lines
    ]


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]


class Said:
    """The last words of every process, and when they came."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, int] = {}
        self._children: list[dict[str, Any]] = []
        self._watched = 0

    def hear(self, name: str, now: int) -> None:
        """Note that ``name`` lives."""
        if name != SUPERVISOR:
            self._heard[name] = now

    def take(self, name: str, body: Mapping[Any, Any], now: int) -> None:
        """Take a status."""
        if name == SUPERVISOR:
            self._children, self._watched = children(body), now
        else:
            self._said[name] = checked(body)

    def producers(self, now: int) -> dict[str, dict[str, Any]]:
        """What producers said, and whether they still do."""
        return {
            name: {**said, "alive": now - self._heard.get(name, 0) < SILENT_NS}
            for name, said in self._said.items()
        }

    def children(self, now: int) -> list[dict[str, Any]]:
        """What a supervisor says of the processes it keeps alive; nothing when it is gone."""
        return self._children if now - self._watched < SILENT_NS else []

    @property
    def queues(self) -> list[Queue]:
        """What waits at the producers."""
        out = []
        for name, said in self._said.items():
            for keys, label in ((GAUGES, "window"), (RING, "ring")):
                if keys[2] in said:
                    waits, high, bound = (int(said.get(k, 0)) for k in keys)
                    out.append(Queue(f"{name} {label}", waits, bound, high))
        return out

    @property
    def alarms(self) -> list[str]:
        """What is wrong, in the processes' own words."""
        left = [c for c in self._children if c["gave_up"]]
        gave_up = [f"{c['name']} keeps dying and is left alone ({c['why']})" for c in left]
        return gave_up + sorted({s["alarm"] for s in self._said.values() if s.get("alarm")})


class FileState:
    """The file being written: its size and growth, its segments, and the room beside it."""

    def __init__(self) -> None:
        self._rate = Rate()

    def __call__(self, path: Path | None, now: int) -> dict[str, Any]:
        """Look at the file; whatever is not there yet is not told."""
        state: dict[str, Any] = {"path": str(path or ""), "bytes": 0, "bytes_hz": 0.0}
        if path is None or not path.exists():
            return state
        parts = path.with_suffix(FOLDER)
        segments = dict(map(_size, parts.glob("*.h5"))) if parts.is_dir() else {}
        segments.pop(0, None)
        size = sum({**segments, **dict([_size(path)])}.values())
        return state | {
            "bytes": size,
            "bytes_hz": self._rate(size, now),
            "free": shutil.disk_usage(path.parent).free,
            "segments": len(segments),
        }


def _size(path: Path) -> tuple[int, int]:
    """Inode and bytes of a file, which may have two names; zeros when it went away meanwhile."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_ino, stat.st_size
