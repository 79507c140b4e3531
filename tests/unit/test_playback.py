"""The pace of a player, on a clock that moves only when somebody waits."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from ffb.shot import time_of, timestamp_of
from ffb.sources.xtc2_specs import Service
from ffb.testing import playback

T0 = 1_730_000_000_000_000_000
SECOND = 1_000_000_000


def dgram(service: Service, seconds: float) -> memoryview:
    stamp = timestamp_of(T0 + round(seconds * SECOND))
    return memoryview(struct.pack("<QIIHHI", stamp, service << 24, 0, 0, 0, 12))


class Server:
    """Notes when it was given what; everything it does takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent: list[tuple[Service, float, int | None]] = []
        self.busy = 0.0  # what a shot costs its clients

    def poll(self, timeout: float) -> None:
        self.now += timeout

    def drain(self, timeout: float = 0.0, *, transitions: bool = False) -> bool:
        return True

    def send(self, dgram: memoryview, stamp: int | None = None) -> None:
        service = Service(playback.service(dgram))
        self.sent.append((service, self.now, stamp))
        if service == Service.L1_ACCEPT:
            self.now += self.busy

    @property
    def shots(self) -> list[float]:
        return [round(t - 1000.0, 6) for service, t, _ in self.sent if service == 12]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(playback, "time", SimpleNamespace(monotonic=lambda: server.now))
    return server


def tape() -> list[memoryview]:
    """Two steps of two shots, 0.1 s apart, and a second between the steps."""
    steps = [
        [
            dgram(Service.ENABLE, s),
            dgram(Service.L1_ACCEPT, s + 0.1),
            dgram(Service.L1_ACCEPT, s + 0.2),
            dgram(Service.DISABLE, s + 0.3),
        ]
        for s in (1.0, 2.0)
    ]
    whole = [dgram(Service.CONFIGURE, 0.0), dgram(Service.BEGIN_RUN, 0.5), *steps[0], *steps[1]]
    return [*whole, dgram(Service.END_RUN, 2.4)]


def play(server: Server, **options: Any) -> None:
    def clock() -> int:
        return T0 + 7 * SECOND + round((server.now - 1000.0) * SECOND)

    playback.Player(server, clock=clock, **options).play([tape()])  # type: ignore[arg-type]


def test_rate_is_the_pace_within_a_step(server: Server) -> None:
    play(server, rate=4.0)
    assert server.shots == [0.25, 0.5, 0.75, 1.0]


def test_a_delay_is_made_up_within_a_step(server: Server) -> None:
    server.busy = 0.4
    play(server, rate=4.0)
    assert server.shots == [0.25, 0.65, 1.3, 1.7]


def test_settling_precedes_what_ends(server: Server) -> None:
    play(server, settle=0.5)
    assert server.shots == [0.5, 0.5, 1.0, 1.0]  # Configure, then Disable
    assert server.sent[-1][1] == 1002.0  # and EndRun


def test_now_keeps_the_runs_own_pace(server: Server) -> None:
    play(server, now=True, rate=4.0)
    assert server.shots == [0.0, 0.1, 1.0, 1.1]
    stamps = [time_of(s) - T0 for kind, _, s in server.sent if kind == 12 and s is not None]
    assert stamps == [7 * SECOND + round(t * SECOND) for t in server.shots]
    everything = [s for _, _, s in server.sent if s is not None]
    assert len(everything) == len(server.sent)
    assert everything == sorted(everything)


def test_without_now_nothing_is_touched_in_the_first_loop(server: Server) -> None:
    play(server)
    assert {stamp for _, _, stamp in server.sent} == {None}
    assert server.shots == [0.0] * 4
