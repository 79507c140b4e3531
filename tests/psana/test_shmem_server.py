"""Every shot reaches exactly one client of the shared-memory server, in order and whole."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ffb.shot import time_of
from ffb.sources.xtc2_specs import Service
from ffb.testing import mqueue, playback
from ffb.testing.fabricate import write_run
from ffb.testing.mqueue import Queue
from ffb.testing.shmem_server import ShmemServer, clean, real_server, sweep
from ffb.testing.truth import RunSpec

Serve = Callable[..., "subprocess.Popen[str]"]
PATIENCE = 240.0


class Client(threading.Thread):
    """A client as small as the protocol allows; keeps a copy of every dgram it was given.

    It prefers shots to transitions, or, where it is lazy, transitions that come within so many
    seconds to shots that wait.
    """

    def __init__(self, tag: str, *, limit: int = 0, lazy: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.tag, self.limit, self.lazy = tag, limit, lazy
        self.dgrams: list[bytes] = []
        self.arrivals: list[int] = []
        self.error: BaseException | None = None
        self.start()

    def _connect(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "no server advertised itself"
            try:
                discovery = Queue(f"/PdsFromMonitorDiscovery_{self.tag}")
            except FileNotFoundError:
                continue
            select.select([discovery.fd], [], [], PATIENCE)
            message = discovery.receive()
            discovery.close()
            if message:
                break
        self.tcp = socket.create_connection(("127.0.0.1", struct.unpack_from("<i", message)[0]))
        hello = self.tcp.recv(16, socket.MSG_WAITALL)
        k, shape, self.size, _ = struct.unpack("<iIII", hello)
        self.events = Queue(f"/PdsToMonitorEvQueue_{self.tag}_{k}")
        self.returns = Queue(f"/PdsToMonitorEvQueue_{self.tag}_{shape >> 16 & 255}")
        with open(f"/dev/shm/PdsMonitorSharedMemory_{self.tag}", "rb") as f:
            self.shm = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)

    def run(self) -> None:
        try:
            self._connect()
            with self.tcp, self.shm:
                while self._next():
                    pass
            self.events.close()
            self.returns.close()
        except BaseException as e:
            self.error = e

    def _next(self) -> bool:
        ready = select.select([self.tcp], [], [], self.lazy)[0] if self.lazy else []
        ready = ready or select.select([self.tcp, self.events.fd], [], [], PATIENCE)[0]
        assert ready, "nothing arrived"
        if self.events.fd in ready:
            message = self.events.receive()
            if message:
                self._keep(message)
                self.returns.send(message)
        elif self.tcp in ready:
            message = self.tcp.recv(16, socket.MSG_WAITALL)
            if len(message) < 16:
                return False
            self._keep(message)
            self.tcp.sendall(message)
        return not self.limit or len(self.shots) < self.limit

    def _keep(self, message: bytes) -> None:
        at = struct.unpack_from("<i", message)[0] * self.size
        self.arrivals.append(time.time_ns())
        n = 12 + struct.unpack_from("<I", self.shm, at + 20)[0]
        self.dgrams.append(self.shm[at : at + n])

    @property
    def shots(self) -> list[bytes]:
        return [d for d in self.dgrams if playback.service(d) == Service.L1_ACCEPT]

    @property
    def transitions(self) -> list[bytes]:
        return [d for d in self.dgrams if playback.service(d) != Service.L1_ACCEPT]

    def finish(self) -> Client:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self


def strict(client: Client) -> list[int]:
    """Timestamps of what came, but for slow control, which may overtake."""
    kept = [d for d in client.dgrams if playback.service(d) != Service.SLOW_UPDATE]
    return [playback.stamp(d) for d in kept]


def tape(path: Path, *, shots: bool) -> list[bytes]:
    return [
        bytes(d) for d in playback.load(path) if (playback.service(d) == Service.L1_ACCEPT) == shots
    ]


@pytest.mark.psana
def test_two_clients_share_every_shot_once_and_in_order(
    run_file: Path, tag: str, shmem_server: Serve
) -> None:
    process = shmem_server(run_file, "--clients", 2, "--buffers", 6)
    clients = [Client(tag), Client(tag)]
    a, b = (c.finish() for c in clients)
    expected = tape(run_file, shots=True)
    got = {playback.stamp(d): d for d in a.shots + b.shots}
    assert len(a.shots) + len(b.shots) == len(expected)
    assert [got[playback.stamp(d)] for d in expected] == expected
    for c in (a, b):
        stamps = [playback.stamp(d) for d in c.shots]
        assert stamps == sorted(stamps)
        assert c.transitions == tape(run_file, shots=False)
    assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, Path]:
    """A run of small dgrams: 30 shots in 2 steps, 1 kHz."""
    spec = RunSpec(
        steps=2, shots_per_step=15, groups=("timing", "beam"), rate=1000.0, gap=0.05, slow=5
    )
    return spec, write_run(tmp_path_factory.mktemp("small") / "run.xtc2", spec)


@pytest.mark.psana
@pytest.mark.parametrize("lazy", [0.0, 0.02])
def test_no_shot_crosses_a_transition(
    lazy: float, small: tuple[RunSpec, Path], tag: str, shmem_server: Serve
) -> None:
    """Whatever a client prefers, all but slow control comes in the order of the file."""
    spec, path = small
    shmem_server(path, "--clients", 2)
    clients = [Client(tag, lazy=lazy), Client(tag, lazy=lazy)]
    for client in clients:
        client.finish()
        assert strict(client) == sorted(strict(client))
    # a client slow to give a transition back gets none of the shots after it, and may get none
    assert sum(len(client.shots) for client in clients) == spec.shots


@pytest.mark.psana
def test_now_shifts_a_run_by_one_constant(
    small: tuple[RunSpec, Path], tag: str, shmem_server: Serve
) -> None:
    spec, path = small
    before = time.time_ns()
    shmem_server(path, "--now", "--loops", 2)
    client = Client(tag).finish()
    both = zip(client.arrivals, client.dgrams, strict=True)
    shots = [(t, d) for t, d in both if playback.service(d) == Service.L1_ACCEPT]
    assert len(shots) == 2 * spec.shots
    for run in (shots[: spec.shots], shots[spec.shots :]):
        times = [time_of(playback.stamp(d)) for _, d in run]
        assert len({t - spec.time(i) for i, t in enumerate(times)}) == 1
        assert before < times[0]
        assert all(arrival >= t for (arrival, _), t in zip(run, times, strict=True))
    assert strict(client) == sorted(strict(client))


@pytest.mark.psana
def test_loops_are_new_runs(small: tuple[RunSpec, Path], tag: str, shmem_server: Serve) -> None:
    spec, path = small
    shmem_server(path, "--loops", 3)
    client = Client(tag).finish()
    begins = [d for d in client.dgrams if playback.service(d) == Service.BEGIN_RUN]
    assert [struct.unpack("<I", d[-4:])[0] for d in begins] == [7, 8, 9]
    assert spec.exp.encode() in begins[2]
    firsts = [time_of(playback.stamp(d)) for d in client.shots[:: spec.shots]]
    assert [t - spec.time(0) for t in firsts] == [k * 3_600_000_000_000 for k in range(3)]


@pytest.mark.psana
def test_a_late_client_is_told_where_the_others_are(small: tuple[RunSpec, Path], tag: str) -> None:
    spec, path = small
    server = ShmemServer(tag, clients=2, buffers=8, size=1 << 20)
    try:
        first = Client(tag, limit=5)
        server.wait_clients(1, PATIENCE)
        for d in playback.load(path):
            server.send(d)
            if server.stats["shots"] == 5:
                break
        first.finish()
        late = Client(tag, limit=1)
        while (server.stats["connected"], server.stats["disconnected"]) != (2, 1):
            server.poll(0.1)
        server.send(tape(path, shots=True)[5])
        late.finish()
        begun = [Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP, Service.ENABLE]
        assert [playback.service(d) for d in late.transitions] == begun
        assert playback.stamp(late.shots[0]) == spec.timestamp(5)
    finally:
        server.close()


@pytest.mark.psana
def test_what_a_dead_client_held_is_counted(small: tuple[RunSpec, Path], tag: str) -> None:
    _, path = small
    server = ShmemServer(tag, clients=1, buffers=4, size=1 << 20)
    try:
        dead = Client(tag, limit=1)
        server.wait_clients(1, PATIENCE)
        shots = tape(path, shots=True)
        server.send(shots[0])
        dead.finish()
        server.drain(PATIENCE)
        with socket.socket() as idle:  # connects, takes nothing, and goes
            idle.connect(("127.0.0.1", port(tag)))
            while server.stats["connected"] < 2:
                server.poll(0.1)
            for d in shots[1:4]:
                server.send(d)
        while server.stats["disconnected"] < 2:
            server.poll(0.1)
        assert server.stats["lost with a client"] == 3
        assert server.drain(PATIENCE)
    finally:
        server.close()


def port(tag: str) -> int:
    discovery = Queue(f"/PdsFromMonitorDiscovery_{tag}")
    message = discovery.receive()
    discovery.close()
    assert message is not None
    return int(struct.unpack_from("<i", message)[0])


def test_dgrams_must_fit(tag: str) -> None:
    server = ShmemServer(tag, size=4096)
    try:
        with pytest.raises(ValueError, match="serve with --size 0x1388"):
            server.send(bytes(11) + bytes([12]) + bytes(4988))
    finally:
        server.close()


@pytest.mark.psana
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_end_and_death_leave_nothing_to_trip_over(
    how: signal.Signals, small: tuple[RunSpec, Path], tag: str, shmem_server: Serve
) -> None:
    _, path = small
    process = shmem_server(path)
    process.send_signal(how)
    process.wait(PATIENCE)
    segment = Path(f"/dev/shm/PdsMonitorSharedMemory_{tag}")
    assert segment.exists() == (how == signal.SIGKILL)
    shmem_server(path)  # a successor is not confused by what the dead one left
    client = Client(tag).finish()
    assert client.shots == tape(path, shots=True)


def test_clean_removes_everything(tag: str) -> None:
    names = [f"/PdsToMonitorEvQueue_{tag}_0", f"/PdsFromMonitorDiscovery_{tag}"]
    for name in names:
        Queue(name, depth=1).close()
    segment = Path(f"/dev/shm/PdsMonitorSharedMemory_{tag}")
    segment.write_bytes(b"")
    assert clean(tag) == [*names, str(segment)]
    assert not segment.exists()
    assert not mqueue.unlink(names[0])


def test_what_a_process_left_that_is_no_more_is_swept_away(tag: str) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine, left = f"ffb{os.getpid()}x", f"ffb{dead.pid}x"
    for name in (mine, left):
        Path(f"/dev/shm/PdsMonitorSharedMemory_{name}").write_bytes(b"")
    swept = sweep()
    assert [f"/dev/shm/PdsMonitorSharedMemory_{left}" in swept, bool(clean(mine))] == [True, True]


@pytest.mark.psana
def test_psanas_own_server(small: tuple[RunSpec, Path], tag: str) -> None:
    """It may drop, repeat and tear shots; what it must do is speak this protocol."""
    spec, path = small
    process = real_server(path, tag=tag, size=1 << 20, rate=200.0)
    try:
        client = Client(tag, limit=3, lazy=0.01).finish()
    finally:
        process.kill()
        process.wait()
    transitions = tape(path, shots=False)
    assert client.transitions[:4] == transitions[:4]
    known = {spec.timestamp(i) for i in range(spec.shots)}
    assert {playback.stamp(d) for d in client.shots} <= known
    assert os.access(process.args[0], os.X_OK)
