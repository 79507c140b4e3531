"""Server time of the page per session and update, with light sessions that draw nothing.

Run: python -m tests.benchmarks.bench_page [updates]. A schema of 100 scalars and 20 arrays, five
of them images of 512 x 512. ``snapshot`` is the aggregator's share, ``unpack`` the feed's;
``build`` is what one new session costs. A tab's row is one update of a session that looks at it,
made into the messages that go to the browser; MB are those of these messages.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from bokeh.document import Document
from bokeh.document.events import DocumentPatchedEvent
from bokeh.protocol import Protocol

from ffb.batch import Batch
from ffb.dashboards.layout import Page
from ffb.dashboards.model import Snapshot
from ffb.live.model import Live
from ffb.schema import CORE, Column, Schema
from ffb.shot import timestamp_of
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.wire import unpack

ROWS, STEPS = 24, 60
SCHEMA = Schema(
    (
        *CORE,
        Column("scan/lxt", "<f8", unit="ps"),
        Column("gas/energy", "<f8", unit="mJ"),
        *(Column(f"r{i // 10}/f{i}", "<f8", reducer=f"r{i // 10}") for i in range(98)),
        *(Column(f"c{i}/mean", "<f8", (500,), ("q",), reducer=f"c{i}") for i in range(15)),
        *(Column(f"i{i}/area", "<f4", (512, 512), ("y", "x"), reducer=f"i{i}") for i in range(5)),
    )
)


def batch(step: int) -> Batch:
    """Rows of one step, laser on every other."""
    rng, made = np.random.default_rng(step), Batch(SCHEMA, ROWS)
    for column in SCHEMA.columns:
        values = made.columns[column.name]
        values[...] = rng.random(values.shape, np.float32) if column.dtype[1] == "f" else 0
    c, start = made.columns, 1_800_000_000_000_000_000 + step * 200_000_000
    c["timestamp"][:] = [timestamp_of(start + k * 8_000_000) for k in range(ROWS)]
    c["step"][:], c["scan/lxt"][:] = step, step
    c["lightStatus/xray"][:], c["lightStatus/laser"][:] = 1, np.arange(ROWS) % 2
    made.read[:] = time.time_ns()
    return made


def timed(action: Callable[[], object], times: int) -> float:
    """Median CPU milliseconds of this thread."""
    taken = []
    for _ in range(times):
        begun = time.thread_time()
        action()
        taken.append(time.thread_time() - begun)
    return float(np.median(taken)) * 1e3


def main() -> None:
    """Print the table."""
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    live = Live()
    live.begin_run(RunInfo("bench", 1), SCHEMA, Provenance())
    for step in range(STEPS):
        live.append(batch(step))
        live.commit(Counts(step, 0, 0))
    waiting = iter([batch(STEPS + k) for k in range(10)])

    def commit() -> None:
        live.append(next(waiting))
        live.commit(Counts(STEPS, 0, 0))

    frame = live.snapshot({})
    print("| what | CPU ms | MB |")
    print("|---|---|---|")
    print(f"| commit of {ROWS} rows | {timed(commit, 10):.1f} | |")
    print(
        f"| snapshot | {timed(lambda: live.snapshot({}), updates):.1f} | {len(frame) / 1e6:.1f} |"
    )
    print(f"| unpack | {timed(lambda: Snapshot(*unpack(frame)), updates):.1f} | |")
    shots = [Snapshot(*unpack(live.snapshot({}))) for _ in range(2)]
    print(f"| build | {timed(lambda: Page(shots[0]).refresh(shots[0]), 5):.1f} | |")
    for name, tab in (("overview", 0), ("features", 1), ("curves", 2), ("images", 3)):
        for sessions in (1, 8):
            sent: list[int] = []
            pages = [_session(shots[0], tab, sent) for _ in range(sessions)]
            k = iter(range(10_000))

            def update(pages: list[Page] = pages, k: object = k) -> None:
                shot = shots[next(k) % 2]  # type: ignore[call-overload]
                shot.meta["newest"] += 1_000_000_000  # every caption changes
                for page in pages:
                    page.refresh(shot)

            each = timed(update, updates) / sessions
            mb = sum(sent) / updates / sessions / 1e6
            print(f"| {name}, {sessions} at once, each | {each:.1f} | {mb:.2f} |")


def _session(shot: Snapshot, tab: int, sent: list[int]) -> Page:
    """A page in a document that makes every change into the message a browser would get."""
    document, page, protocol = Document(), Page(shot), Protocol()
    page.refresh(shot)
    document.add_root(page.layout)
    page.tabs.active = tab

    def send(event: object) -> None:
        if isinstance(event, DocumentPatchedEvent):
            message = protocol.create("PATCH-DOC", [event])
            sent.append(
                len(message.header_json)
                + len(message.content_json)
                + sum(len(b.to_bytes()) for b in message.buffers)
            )

    document.on_change(send)
    return page


if __name__ == "__main__":
    main()
