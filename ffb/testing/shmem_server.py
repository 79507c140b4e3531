"""A sound, loss-free server on psana's shared-memory protocol, for tests, demo and benchmarks.

psana's own ``shmemServer`` overwrites the event it has just queued and drops whenever a client is
slow. This one delivers every shot exactly once, in order, to one of its clients: it waits for a
free buffer instead of dropping. No shot reaches a client before the transitions that precede it
were given back. Slow-control updates overtake shots that wait in a queue, as they do in the DAQ.

The protocol: a client finds the server's TCP port in a discovery queue. Transitions go to every
client, announced over TCP; shots go to one client each, announced in its message queue. Both lie
in buffers of one shared segment until the client gives the buffer's index back.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.util
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ffb.sources.xtc2_specs import Service
from ffb.testing import mqueue
from ffb.testing.mqueue import Queue
from ffb.testing.playback import Player, load

Bytes = bytes | bytearray | memoryview

#: Buffers for transitions, as in psana's XtcMonitorServer.
TRANSITIONS = 18

_POLL_EVERY = 32  # shots between looks at the sockets when buffers are plenty


def _segment(tag: str) -> Path:
    return Path(f"/dev/shm/PdsMonitorSharedMemory_{tag}")  # noqa: S108  (the protocol's name)


def _queue(tag: str, which: int | str) -> str:
    if which == "discovery":
        return f"/PdsFromMonitorDiscovery_{tag}"
    return f"/PdsToMonitorEvQueue_{tag}_{which}"


def clean(tag: str) -> list[str]:
    """Remove what a killed server left behind under ``tag``; returns the names removed."""
    names = [_queue(tag, k) for k in (*range(65), "discovery")]
    names += [f"/PdsRequestQueue_{tag}", f"/PdsShuffleQueue_{tag}"]
    gone = [name for name in names if mqueue.unlink(name)]
    with contextlib.suppress(FileNotFoundError):
        _segment(tag).unlink()
        gone.append(str(_segment(tag)))
    return gone


def sweep() -> list[str]:
    """Remove what processes that are no more left behind, if their tag tells their number.

    A process that is killed cannot clean. Such tags are ``ffb<pid>`` and ``ffb<pid>x<anything>``.
    """
    gone = []
    for path in _segment("").parent.glob(f"{_segment('ffb').name}*"):
        tag = path.name.removeprefix(_segment("").name)
        m = re.fullmatch(r"ffb(\d{1,7})(x\w*)?", tag)
        if m and not Path(f"/proc/{m[1]}").exists():
            gone += clean(tag)
    return gone


class ShmemServer:
    """Shared memory named ``tag`` with slots for ``clients`` and ``buffers`` of ``size`` bytes.

    ``buffers`` is limited by /proc/sys/fs/mqueue/msg_max, 10 as a rule. ``stats`` counts what was
    sent, to whom, and what was lost with a client that died; ``lost`` holds the timestamps of that:
    shots that were in its queue or in its hands, and whose buffers it had not given back.
    """

    def __init__(self, tag: str, clients: int = 1, buffers: int = 8, size: int = 0x90_0000) -> None:
        if not 1 <= clients <= buffers:
            raise ValueError(f"{buffers} buffers do not suffice for {clients} clients: one each")
        if size >= 1 << 28:
            raise ValueError(f"a buffer of {size} bytes: the protocol's limit is {(1 << 28) - 1}")
        clean(tag)
        self.tag, self.clients, self.buffers, self.size = tag, clients, buffers, size
        self.stats: collections.Counter[str] = collections.Counter()
        self.lost: list[int] = []
        total = (buffers + TRANSITIONS) * size
        fd = os.open(_segment(tag), os.O_CREAT | os.O_RDWR, 0o666)
        os.ftruncate(fd, -(-total // 4096) * 4096)
        self._shm = mmap.mmap(fd, total)
        os.close(fd)
        zeros = bytes(size)
        for i in range(buffers):  # touch every page now, not while shots wait
            self._shm[i * size : (i + 1) * size] = zeros
        self._returns = Queue(_queue(tag, clients), depth=buffers)
        self._queues = [Queue(_queue(tag, k), depth=buffers // clients) for k in range(clients)]
        self._discovery = Queue(_queue(tag, "discovery"), depth=2)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket | None] = [None] * clients
        self._free = collections.deque(range(buffers))
        self._owner = [-1] * buffers
        self._holders: list[set[int]] = [set() for _ in range(TRANSITIONS)]
        self._unseen: list[set[int]] = [set() for _ in range(clients)]
        self._state: list[tuple[int, int]] = []  # (service, transition buffer), for late joiners
        self._next_transition = self._turn = self._unpolled = 0
        self._messages = [self._message(i) for i in range(buffers + TRANSITIONS)]
        self._advertise()

    # int32 index, buffers | queues << 8 | return queue << 16, uint32 size, uint32 0
    def _message(self, index: int) -> bytes:
        shape = self.buffers + TRANSITIONS | self.clients << 8 | self.clients << 16
        return struct.pack("<iIII", index, shape, self.size, 0)

    def _advertise(self) -> None:
        self._discovery.send(self._message(self._listener.getsockname()[1]))

    @property
    def connected(self) -> int:
        """Number of clients here."""
        return sum(s is not None for s in self._sockets)

    @property
    def _live(self) -> Iterator[tuple[int, socket.socket]]:
        return ((k, s) for k, s in enumerate(self._sockets) if s is not None)

    def poll(self, timeout: float = 0.0) -> None:
        """Accept clients and take back buffers, waiting up to ``timeout`` s for either."""
        self._unpolled = 0
        live = list(self._live)
        watched: list[socket.socket | int] = [self._returns.fd, *(s for _, s in live)]
        if self._listener.fileno() >= 0:
            watched.append(self._listener)
        ready = select.select(watched, [], [], timeout)[0]
        if self._returns.fd in ready:
            self._take_back()
        for k, s in live:
            if s in ready:
                self._hear(k, s)
        if self._listener in ready:
            self._accept()

    def _take_back(self) -> None:
        receive, owner, free = self._returns.receive, self._owner, self._free
        while message := receive():
            i = int.from_bytes(message[:4], "little")
            if owner[i] >= 0:
                owner[i] = -1
                free.append(i)

    def _hear(self, k: int, s: socket.socket) -> None:
        """Take transition buffers back from a client, or notice that it is gone."""
        try:
            message = s.recv(16, socket.MSG_WAITALL)
        except ConnectionError:
            message = b""
        if len(message) < 16:
            self._retire(k, s)
            return
        b = struct.unpack_from("<i", message)[0] - self.buffers
        self._holders[b].discard(k)
        self._unseen[k].discard(b)

    def _accept(self) -> None:
        s, _ = self._listener.accept()
        if None in self._sockets:
            k = self._sockets.index(None)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._queues[k].receive():
                pass
            self._sockets[k] = s
            s.sendall(self._message(k))
            for service, b in self._state:  # bring it to where the others are
                self._tell(k, s, service, b)
            self.stats["connected"] += 1
        else:
            s.close()
            self.stats["refused"] += 1
        self._advertise()

    def _retire(self, k: int, s: socket.socket) -> None:
        s.close()
        self._sockets[k] = None
        while self._queues[k].receive():
            pass
        self._take_back()
        for i, owner in enumerate(self._owner):
            if owner == k:
                self._owner[i] = -1
                self._free.append(i)
                self.stats["lost with a client"] += 1
                self.lost.append(struct.unpack_from("<Q", self._shm, i * self.size)[0])
        for holders in self._holders:
            holders.discard(k)
        self._unseen[k].clear()
        self.stats["disconnected"] += 1

    def wait_clients(self, n: int, timeout: float = float("inf")) -> int:
        """Wait for ``n`` clients; returns how many there are."""
        end = time.monotonic() + timeout
        while self.connected < n and time.monotonic() < end:
            self.poll(0.1)
        return self.connected

    def drain(self, timeout: float = float("inf"), *, transitions: bool = False) -> bool:
        """Wait until every shot, with ``transitions`` those too, has been given back.

        Returns whether that came about within ``timeout`` s.
        """
        end = time.monotonic() + timeout
        while len(self._free) < self.buffers or (transitions and any(self._holders)):
            if time.monotonic() > end:
                return False
            self.poll(0.05)
        return True

    def send(self, dgram: Bytes, stamp: int | None = None) -> None:
        """Deliver a dgram, with another timestamp if ``stamp`` is given; waits for a buffer.

        Raises ``ValueError`` if it does not fit into a buffer.
        """
        if len(dgram) > self.size:
            raise ValueError(
                f"a dgram of {len(dgram)} bytes does not fit into buffers of {self.size}: "
                f"serve with --size {len(dgram):#x} or more"
            )
        service = dgram[11] & 15
        if service == Service.L1_ACCEPT:
            self._send_shot(dgram, stamp)
        else:
            self._send_transition(service, dgram, stamp)

    def _send_shot(self, dgram: Bytes, stamp: int | None) -> None:
        self._unpolled += 1
        if self._unpolled >= _POLL_EVERY:
            self.poll()
        while not self._free:
            self.poll(0.1)
        i = self._free[0]
        self._put(i, dgram, stamp)
        message = self._messages[i]
        while True:
            for _ in range(self.clients):
                k = self._turn
                self._turn = (k + 1) % self.clients
                if self._sockets[k] is None or self._unseen[k]:
                    continue
                if self._queues[k].send(message):
                    self._free.popleft()
                    self._owner[i] = k
                    self.stats["shots"] += 1
                    return
            self.poll(0.1)

    def _send_transition(self, service: int, dgram: Bytes, stamp: int | None) -> None:
        held = {b for _, b in self._state}
        while True:
            b = self._next_transition
            self._next_transition = (b + 1) % TRANSITIONS
            if b not in held and not self._holders[b]:
                break
            self.poll(0.005)
        self._put(self.buffers + b, dgram, stamp)
        if service != Service.SLOW_UPDATE:
            begins = service % 2 == 0
            level = service if begins else service - 1
            while self._state and self._state[-1][0] >= level:
                self._state.pop()
            if begins:
                self._state.append((service, b))
        for k, s in list(self._live):
            self._tell(k, s, service, b)
        self.stats["transitions"] += 1
        self.poll()

    def _tell(self, k: int, s: socket.socket, service: int, b: int) -> None:
        """Announce a transition; the client gets no shots until it has given it back."""
        self._holders[b].add(k)
        if service != Service.SLOW_UPDATE:
            self._unseen[k].add(b)
        try:
            s.sendall(self._messages[self.buffers + b])
        except ConnectionError:
            self._retire(k, s)

    def _put(self, i: int, dgram: Bytes, stamp: int | None) -> None:
        at = i * self.size
        self._shm[at : at + len(dgram)] = dgram
        if stamp is not None:
            struct.pack_into("<Q", self._shm, at, stamp)

    def close(self) -> None:
        """Say good-bye to the clients and remove every queue and the segment."""
        mqueue.unlink(self._discovery.name)  # clients reconnect the moment they see the end
        self._listener.close()
        for _, s in self._live:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_WR)  # let them read what is under way
        end = time.monotonic() + 1.0
        while self.connected and time.monotonic() < end:
            self.poll(0.05)
        for _, s in self._live:
            s.close()
        for queue in (self._returns, *self._queues, self._discovery):
            queue.close()
        self._shm.close()
        clean(self.tag)


def real_server(
    *files: str | Path,
    tag: str,
    clients: int = 1,
    buffers: int = 4,
    size: int = 0x90_0000,
    rate: float = 60.0,
    loops: int = 1,
) -> subprocess.Popen[bytes]:
    """Start psana's own ``shmemServer``; it begins with its first client.

    It overwrites shots that wait in a queue, drops when clients are slow, and leaves the segment
    behind (:func:`clean` removes it). Raises ``FileNotFoundError`` without psana.
    """
    psana = importlib.util.find_spec("psana")
    if psana is None or psana.origin is None:
        raise FileNotFoundError("shmemServer comes with psana, which is not installed")
    program = Path(psana.origin).parents[1] / "bin" / "shmemServer"
    if not os.access(program, os.X_OK):  # some installers lose the bit
        program.chmod(0o755)
    clean(tag)
    options = {"-p": tag, "-c": clients, "-n": buffers, "-s": f"{size:#x}", "-r": round(rate)}
    command = [str(program), "-L", str(loops)]
    for option, value in options.items():
        command += [option, str(value)]
    for path in files:
        command += ["-f", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603


def main() -> None:
    """Serve files over shared memory."""
    p = argparse.ArgumentParser(prog="python -m ffb.testing.shmem_server", description=__doc__)
    p.add_argument("files", nargs="+", type=Path)
    p.add_argument("--tag", required=True, help="name of the shared memory")
    p.add_argument("--clients", type=int, default=1, help="slots for clients")
    p.add_argument("--buffers", type=int, default=8, help="buffers for shots, at most 10")
    p.add_argument(
        "--size", type=lambda s: int(s, 0), help="bytes of a buffer (default: the largest dgram)"
    )
    p.add_argument("--rate", type=float, default=0.0, help="Hz (default: as clients take them)")
    p.add_argument("--loops", type=int, default=1, help="play the files this often")
    p.add_argument("--wait", type=int, help="clients to wait for (default: all)")
    p.add_argument("--settle", type=float, default=0.0, help="s before a step or run ends")
    p.add_argument("--linger", type=float, default=1.0, help="s to stay after the last dgram")
    p.add_argument("--now", action="store_true", help="as if it happened now, at its own rate")
    a = p.parse_args()
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    tapes = [load(path) for path in a.files]
    size = a.size or max(len(dgram) for tape in tapes for dgram in tape)
    server = ShmemServer(a.tag, a.clients, a.buffers, -(-size // 4096) * 4096)
    try:
        print(f"serving {a.tag}", flush=True)  # noqa: T201  (who started us waits for this)
        server.wait_clients(a.clients if a.wait is None else a.wait)
        player = Player(server, rate=a.rate, loops=a.loops, now=a.now, settle=a.settle)
        player.play(tapes)
        end = time.monotonic() + a.linger
        while (left := end - time.monotonic()) > 0 and server.connected:
            server.poll(left)
    finally:
        server.close()
        print(dict(server.stats), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
