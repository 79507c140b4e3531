"""Captures sent to an aggregator again: every message once, in order, at its pace."""

from threading import Thread

import numpy as np
import pytest

from ffb.batch import Batch
from ffb.schema import CORE, Schema
from ffb.service import replay
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.transport import Hub
from ffb.wire import Decoder, EndRun, Header, encode
from ffb.writers.capture import CaptureWriter

SCHEMA = Schema(CORE)


def batch(first: int, n: int, read_ns: int) -> Batch:
    out = Batch(SCHEMA, n)
    for column in out.columns.values():
        column[:] = 0
    out.columns["timestamp"][:] = np.arange(first, first + n)
    out.read[:] = read_ns
    return out


def write(path, lives, apart_ns=1_000_000):
    """Record a run of each (producer, epoch): begin, two batches, a step between, the end."""
    with CaptureWriter(path) as capture:
        for producer, epoch in lives:
            head = Header("begin_run", "mfxx49820", 7, 5, producer, epoch, 1)
            counts = {"read": 4, "lost": {}}
            shots = head._replace(kind="shots", counts=counts)
            messages = [
                (head, SCHEMA, Provenance()),
                (shots._replace(seq=2), SCHEMA, batch(10, 2, 10**18)),
                (head._replace(kind="step", seq=3), None, BeginStep(1, {"delay": 2.0})),
                (head._replace(kind="status", seq=0), None, {"read": 2}),
                (shots._replace(seq=4), SCHEMA, batch(20, 2, 10**18 + apart_ns)),
                (shots._replace(seq=4), SCHEMA, batch(20, 2, 10**18 + apart_ns)),
                (head._replace(kind="end_run", seq=5), None, EndRun()),
            ]
            for header, schema, body in messages:
                capture.write(
                    [bytes(memoryview(f).cast("B")) for f in encode(header, schema, body)]
                )


def received(hub, sent: Thread) -> list[tuple[str, str, list[int]]]:
    """What comes in until the sender is through: producer, kind, timestamps."""
    out, decode = [], Decoder()
    while sent.is_alive():
        for d in hub.receive(0.02):
            m = decode(d.frames)
            stamps = m.body.columns["timestamp"].tolist() if isinstance(m.body, Batch) else []
            out.append((d.producer, m.header.kind, stamps))
            if d.seq:
                hub.ack(d.producer, d.epoch, d.seq)
    return out


def play(tmp_path, *args):
    hub, counts = Hub(f"ipc://{tmp_path}/hub"), []
    sender = Thread(target=lambda: counts.append(replay.play(*args)), daemon=True)
    try:
        sender.start()
        got = received(hub, sender)
        sender.join()
    finally:
        hub.close()
    return got, counts


RUN = [("begin_run", []), ("shots", [10, 11]), ("step", []), ("shots", [20, 21]), ("end_run", [])]


def test_every_message_arrives_once_and_in_order(tmp_path):
    write(tmp_path / "c", [("p0", 1), ("p1", 1), ("p0", 2)])
    got, counts = play(tmp_path, tmp_path / "c", f"ipc://{tmp_path}/hub")
    assert counts == [15]
    for name in ("p0", "p1", "p0:1"):
        assert [(kind, stamps) for who, kind, stamps in got if who == name] == RUN
    assert len(got) == 15


def test_shots_keep_their_distance_over_the_speed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(replay.time, "monotonic", lambda: now[0])
    pace = replay._Pace(4.0)
    first = replay.Message(Header("shots"), SCHEMA, batch(1, 1, 10**18))
    later = replay.Message(Header("shots"), SCHEMA, batch(2, 1, 10**18 + 2 * 10**9))
    now[0] = 101.0
    assert pace.due(first) == 101.0
    now[0] = 105.0
    assert pace.due(later) == 101.5
    assert pace.due(replay.Message(Header("step"), None, BeginStep(1))) == 105.0


def test_nobody_listening_is_told(tmp_path):
    write(tmp_path / "c", [("p0", 1)])
    to = f"ipc://{tmp_path}/hub"
    with pytest.raises(
        TimeoutError, match=r"5 messages were not taken within 0\.05 s: is an aggregator listening"
    ):
        replay.play(tmp_path / "c", to, speed=1e9, patience_s=0.05)
