"""Runs whose books are known, written with h5py alone: two producers, losses, late rows, epochs.

:class:`Told` makes up what happened; :func:`write_segments` and :func:`write_plain` make files of
it, growing or finished.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ffb.books.unseen import Unseen
from ffb.reading import contents
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.source import RunInfo

INFO = RunInfo("mfxx49820", 42, 99)
NAME = "mfxx49820_Run0042.h5"
FIRST = (
    *CORE,
    Column("spot/sum", "<f8", unit="keV", doc="all", reducer="spot"),
    Column("azav/I", "<f4", (4,), ("q",), reducer="azav"),
    Column("old/n", "<i4", reducer="old"),
)
SECOND = (*FIRST[:-2], FIRST[-2]._replace(shape=(6,)), Column("new/x", "<f8", reducer="new"))
SCHEMAS = {0: Schema(FIRST), 1: Schema(SECOND)}

SHOTS, COMMIT = 400, 32
#: Shots that nobody was offered, those lost and why, those whose producer was slow.
UNSEEN = (10, 151, 152, 390)
LOST = {20: "backpressure", 21: "backpressure", 133: "damaged", 300: "producer died"}
SLOW = range(181, 213, 2)
#: The shot with which the second epoch begins; the first that belongs to the second step.
EPOCH, STEP = 256, 120


class Told:
    """What happened, as columns and tables that a faultless writer would have written."""

    def __init__(self, ended: bool = True) -> None:
        self.ended = ended
        shots = [i for i in range(SHOTS) if i not in UNSEEN and i not in LOST]
        on_time = [i for i in shots if i not in SLOW]
        at = on_time.index(SLOW[-1] + 1) + 7
        order = [*on_time[:at], *SLOW, *on_time[at:]]
        self.order = np.array(order)
        late = np.isin(self.order, SLOW)
        self.columns: dict[str, np.ndarray] = {
            "timestamp": stamps(self.order),
            "pulse_id": (1000 + 7 * self.order).astype(np.uint64),
            "step": (self.order >= STEP).astype(np.int32),
            "lightStatus/xray": np.ones(len(order), np.int8),
            "lightStatus/laser": (self.order % 2).astype(np.int8),
            "ffb/kept": np.where(self.order < 100, 1.0, 0.5).astype(np.float32),
            "ffb/producer": (self.order % 2).astype(np.uint16),
            "ffb/epoch": (self.order >= EPOCH).astype(np.uint16),
            "ffb/late": late,
        }
        begun = int(np.flatnonzero(self.order >= EPOCH)[0])
        ends = {*range(COMMIT, len(order), COMMIT), begun, len(order)}
        self.epoch_row, self.ends = begun, sorted(ends)
        self.ledger, self.open = self._entries()
        self._tables()

    def value(self, column: Column) -> np.ndarray:
        """All rows of ``column``, in the order of commits."""
        if column.name in self.columns:
            return self.columns[column.name]
        n = self.order.reshape(-1, *(1,) * len(column.shape))
        pixel = np.arange(np.prod(column.shape, dtype=int)).reshape(column.shape)
        return (n * 3 + pixel + len(column.name)).astype(column.dtype)

    def _commit_of(self, row: int) -> int:
        return int(np.searchsorted(self.ends, row, "right")) + 1

    def _entries(self) -> tuple[list[tuple[Any, ...]], dict[int, list[int]]]:
        """Lines of the ledger as the aggregator makes them, and the intervals still open."""
        row = {int(shot): i for i, shot in enumerate(self.order)}
        lines, still_open = [], {}
        for producer in (0, 1):
            interval: list[int] = []
            at = 1
            for shot in range(producer, SHOTS, 2):
                if shot in row:
                    at = self._commit_of(row[shot])
                closes = shot in LOST or shot in (EPOCH, EPOCH + 1)
                if closes and interval:
                    lines.append((producer, b"written", *interval, at))
                    interval = []
                stamp = int(stamps(np.array([shot]))[0])
                if shot in LOST:
                    lines.append((producer, LOST[shot].encode(), stamp, stamp, 1, -1, at))
                elif shot in row:
                    interval = interval or [stamp, stamp, 0, row[shot]]
                    interval[1], interval[2] = stamp, interval[2] + 1
            if self.ended:
                lines.append((producer, b"written", *interval, len(self.ends)))
            else:
                still_open[producer] = interval
        return sorted(lines, key=lambda line: line[-1]), still_open

    def _tables(self) -> None:
        log, self.said = b"", {}
        commits, epochs, steps = [], [], []
        unseen, done = Unseen(), 0

        def say(line: dict[str, Any]) -> tuple[int, int]:
            nonlocal log
            text = f"{json.dumps(line)}\n".encode()
            log += text
            return len(log) - len(text), len(text)

        for number, end in enumerate(self.ends, 1):
            for epoch, begins in ((0, 0), (1, self.epoch_row)):
                if done <= begins < end:
                    columns = [c._asdict() for c in SCHEMAS[epoch].columns]
                    line = {"columns": columns, "config": f"x = {epoch}", "reducers": {}}
                    epochs.append((epoch, begins, number, *say(line)))
            step_row = int(np.flatnonzero(self.columns["step"] == 1)[0])
            for step, begins in ((0, 0), (1, step_row)):
                if done <= begins < end:
                    line = {"values": {"delay": step - 1.0}, "docstring": "scan"}
                    steps.append((step, begins, *say(line)))
            part = slice(done, end)
            unseen.add(*(self.columns[k][part] for k in ("pulse_id", "step", "ffb/late")))
            books = self._books(number, end, unseen)
            lost = sum(books["lost"].values())
            now = 1_700_000_000_000_000_000 + number
            figures = (number, end, now, books["read"], end, lost, books["late"], books["not_seen"])
            commits.append((*figures, *say(books)))
            done = end
        self.tables = {
            contents.COMMITS: np.array(commits, contents.COMMIT_DTYPE),
            contents.LEDGER: np.array(self.ledger, contents.LEDGER_DTYPE),
            contents.PRODUCERS: np.array(
                [(0, b"p0", 111), (1, b"p1", 222)], contents.PRODUCER_DTYPE
            ),
            contents.EPOCHS: np.array(epochs, contents.EPOCH_DTYPE),
            contents.STEPS: np.array(steps, contents.STEP_DTYPE),
            contents.LOG: np.frombuffer(log, np.uint8),
        }
        self.books = books

    def _books(self, number: int, end: int, unseen: Unseen) -> dict[str, Any]:
        last = number == len(self.ends)
        ended = "end of run" if last and self.ended else ""
        accounts: dict[str, Any] = {}
        for producer, name in enumerate(("p0", "p1")):
            lost: dict[str, int] = {}
            for line in self.ledger:
                if line[0] == producer and line[1] != b"written" and line[-1] <= number:
                    lost[line[1].decode()] = lost.get(line[1].decode(), 0) + 1
            rows = int(np.count_nonzero(self.columns["ffb/producer"][:end] == producer))
            flight = 0 if ended else 2
            accounts[name] = {
                "producer": name,
                "epoch": (111, 222)[producer],
                "index": producer,
                "seq": number,
                "read": rows + sum(lost.values()) + flight,
                "written": rows,
                "lost": lost,
                "refused": {},
                "ended": ended,
                "open": self.open.get(producer, []) if last else [],
            }
        total: dict[str, int] = {}
        for account in accounts.values():
            for reason, n in account["lost"].items():
                total[reason] = total.get(reason, 0) + n
        return {
            "commit": number,
            "read": sum(a["read"] for a in accounts.values()),
            "written": end,
            "lost": total,
            "late": int(self.columns["ffb/late"][:end].sum()),
            "producers": accounts,
            "ended": ended,
            "duplicates": 0,
            "epoch": int(self.columns["ffb/epoch"][end - 1]),
            "not_seen": unseen.estimate(sum(total.values())),
        }


def stamps(shots: np.ndarray) -> np.ndarray:
    """Timestamps of shots."""
    began = 1_700_000_000_000_000_000
    return np.array([timestamp_of(began + int(i) * 8_333_333) for i in shots], np.uint64)


def _fill(
    path: Path,
    schema: Schema,
    rows: dict[str, np.ndarray],
    tables: dict[str, np.ndarray],
    committed: int,
    complete: bool,
    **more: Any,
) -> None:
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        group = file.create_group(contents.GROUP)
        for c in schema.columns:
            file.create_dataset(
                c.name,
                data=rows[c.name],
                maxshape=(None, *c.shape),
                chunks=(16, *c.shape),
                fillvalue=c.missing,
            )
        for name, table in tables.items():
            file.create_dataset(name, data=table, maxshape=(None,), chunks=(16,))
        _describe(group, schema, committed, complete, **more)


def _describe(group: Any, schema: Schema, committed: int, complete: bool, **more: Any) -> None:
    group.create_dataset("committed", data=[committed], maxshape=(1,), chunks=(1,), dtype="<i8")
    group.create_dataset("complete", data=[int(complete)], maxshape=(1,), chunks=(1,), dtype="<i8")
    columns = json.dumps([c._asdict() for c in schema.columns])
    texts = {"config": "", "reducers": "{}", "constants": "{}", "versions": "{}", "notes": "[]"}
    for key, text in (texts | {"columns": columns}).items():
        group.create_dataset(key, data=text, dtype=h5py.string_dtype())
    about = {"layout": contents.LAYOUT, "exp": INFO.exp, "run": INFO.run}
    for key, value in (about | {"began": np.uint64(INFO.began)} | more).items():
        group.attrs[key] = value


def _end(told: Told) -> dict[str, Any]:
    keys = ("read", "written", "late", "duplicates", "not_seen")
    return {k: told.books[k] for k in keys} | {"balanced": True} if told.ended else {}


def write_plain(folder: Path, told: Told) -> Path:
    """The run in one file, its rows sorted, as a merge leaves it."""
    order = np.argsort(told.columns["timestamp"], kind="stable")
    place = np.argsort(order)
    shown = contents.union(SCHEMAS)
    tables = {k: v.copy() for k, v in told.tables.items()}
    written = tables[contents.LEDGER]["row"] >= 0
    tables[contents.LEDGER]["row"][written] = place[tables[contents.LEDGER]["row"][written]]
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    begin, end = np.append(0, breaks), np.append(breaks, len(order))
    tables[contents.ORDER] = np.rec.fromarrays(
        [begin, order[begin], end - begin], contents.ORDER_DTYPE
    )
    rows = {}
    for name, (column, source, epochs) in shown.items():
        of = SCHEMAS[epochs[-1]].by_name[source]
        values = np.array(told.value(of))
        absent = ~np.isin(told.columns["ffb/epoch"], epochs)
        values[absent] = column.missing
        rows[name] = values[order]
    path = folder / NAME
    schema = Schema(tuple(s.column for s in shown.values()))
    _fill(path, schema, rows, tables, len(order), told.ended, **_end(told))
    return path


def cuts(told: Told) -> list[tuple[int, int]]:
    """Rows of the file segments: they end with a commit, and where an epoch does."""
    inner = [told.ends[3], told.epoch_row, told.ends[-2]]
    return list(zip([0, *inner], [*inner, len(told.order)], strict=True))


def write_segments(
    folder: Path, told: Told, only: Sequence[tuple[int, int]] | None = None, live: bool = False
) -> Path:
    """The run as a master and its file segments; the last one is called live where it grows."""
    spans = list(only if only is not None else cuts(told))
    parts = folder / f"{Path(NAME).stem}{contents.FOLDER}"
    parts.mkdir(exist_ok=True)
    listing = []
    for number, (first, end) in enumerate(spans):
        epoch = int(told.columns["ffb/epoch"][first])
        growing = live and number == len(spans) - 1
        name = f"seg{number:04d}{'.live' * growing}.h5"
        before, after = lines_at(told, first), lines_at(told, end)
        tables = {k: v[before[k] : after[k]] for k, v in told.tables.items()}
        rows = {c.name: told.value(c)[first:end] for c in SCHEMAS[epoch].columns}
        complete = told.ended and end == len(told.order)
        if (was := parts / f"seg{number:04d}.live.h5").exists() and not growing:
            os.link(was, parts / name)  # a segment never changes again
        elif not (parts / name).exists():
            _fill(parts / name, SCHEMAS[epoch], rows, tables, end, complete)
        said = (name, first, -1 if growing else end - first, epoch, before)
        listing.append(dict(zip(contents.SEGMENT_KEYS, said, strict=True)))
    write_master(folder / NAME, told, listing, spans[-1][1])
    return folder / NAME


def lines_at(told: Told, row: int) -> dict[str, int]:
    """Lines of each table when the run had ``row`` rows."""
    commits = told.tables[contents.COMMITS]
    done = commits[commits["rows"] <= row]
    if not row:
        return dict.fromkeys(contents.TABLES, 0)
    end, last = int(done["log"][-1] + done["size"][-1]), int(done["commit"][-1])
    out = {contents.COMMITS: len(done), contents.PRODUCERS: 2, contents.LOG: end}
    for name in (contents.LEDGER, contents.EPOCHS):
        out[name] = int(np.count_nonzero(told.tables[name]["commit"] <= last))
    out[contents.STEPS] = int(np.count_nonzero(told.tables[contents.STEPS]["log"] < end))
    return out


def write_master(path: Path, told: Told, listing: list[dict[str, Any]], rows: int) -> None:
    """Replace the master by one that lists ``listing``."""
    new = path.with_name(".new.h5")
    with h5py.File(new, "w", libver=("v110", "v110")) as file:
        group = file.create_group(contents.GROUP)
        text = json.dumps(listing)
        file.create_dataset(contents.SEGMENTS, data=text, dtype=h5py.string_dtype())
        newest = SCHEMAS[max(s["epoch"] for s in listing)]
        complete = told.ended and rows == len(told.order)
        _describe(group, newest, rows, complete, **(_end(told) if complete else {}))
    new.replace(path)
