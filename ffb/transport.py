"""The aggregator's sockets: rows come without loss (Hub), snapshots go to whoever looks.

On the lossless way every message is taken once and in order, and acknowledged when committed. On
the lossy way only the newest frame counts.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import zmq

from ffb.messaging.link import Link, RefusedError
from ffb.messaging.sockets import MAGIC, NAME, PREFIX, End, Type, ms
from ffb.messaging.untrusted import MAX_PAYLOAD, Frame
from ffb.messaging.window import MAX_IN_FLIGHT, Name, Order, printable

__all__ = ["Delivery", "Hub", "Link", "Publisher", "RefusedError", "Subscriber"]


class Delivery(NamedTuple):
    """One message as it arrived, in order and once; ``seq`` is 0 for what is not numbered."""

    producer: str
    epoch: int
    seq: int
    frames: list[Frame]


class Hub(End):
    """The aggregator's end of the lossless way.

    Listens at ``address``: ipc or loopback, elsewhere only with ``key``, the file of our secret
    CURVE key. ``durable`` says what an earlier life has committed, by (producer, epoch).
    ``rejected`` counts by sender what was not understood; ``order`` knows who has come how far.
    ``waiting_bytes`` were handed out and not acknowledged yet, ``high_water`` is the most there
    ever were; each producer is granted ``window_bytes`` of them.
    Raises ``OSError`` with a sentence when somebody else listens there.
    """

    def __init__(
        self,
        address: str,
        durable: Mapping[Name, int] | None = None,
        window_bytes: int = 1 << 30,
        key: Path | None = None,
    ) -> None:
        super().__init__(zmq.ROUTER)
        self.window_bytes = window_bytes
        self.rejected: Counter[str] = Counter()
        self._held = False
        self.waiting_bytes = self.high_water = 0
        self._waiting: dict[Name, deque[tuple[int, int]]] = {}  # numbers and sizes
        self.order = Order(durable or {})
        self._names: dict[bytes, Name] = {}
        self._current: dict[str, int] = {}
        self._owed: set[Name] = set()
        self._left: set[Name] = set()  # those who said Bye
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        self._socket.set_hwm(2 * MAX_IN_FLIGHT)
        self.address = self._bind(address, key)

    def receive(self, timeout_s: float = 0.0, limit: int = 256) -> list[Delivery]:
        """At most ``limit`` messages, waiting for the first for at most ``timeout_s``.

        Numbered messages come in order and once per (producer, epoch), the others as they come.
        """
        for name in [*self._owed]:
            self._pay(name)
        out: list[Delivery] = []
        if self._socket.poll(ms(timeout_s)):
            with contextlib.suppress(zmq.Again):
                for _ in range(limit):
                    frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                    delivery = self._take([f.buffer for f in frames])
                    if delivery is not None:
                        out.append(delivery)
        return out

    def ack(self, producer: str, epoch: int, seq: int) -> None:
        """Tell ``producer`` that everything up to ``seq`` is committed."""
        name = (producer, epoch)
        if self.order.ack(name, seq):
            waiting = self._waiting.get(name, deque())
            while waiting and waiting[0][0] <= seq:
                self.waiting_bytes -= waiting.popleft()[1]
            self._owed.add(name)
            self._pay(name)

    def here(self, producer: str) -> bool | None:
        """Whether the connection of ``producer`` stands; ``None`` when it never was there."""
        if producer not in self._current:
            return None
        return self._tell((producer, self._current[producer])) != "gone"

    @property
    def held(self) -> bool:
        """Whether the disk holds up commits; producers are told when that changes."""
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._owed.update(self._current.items())

    @property
    def attended(self) -> bool:
        """Whether a producer has connected and not taken its leave: it may wait for a word."""
        return not self._left.issuperset(self._current.items())

    def reject(self, sender: str) -> None:
        """Count a message of ``sender`` that could not be understood."""
        known = sender in self.rejected or len(self.rejected) < 100
        self.rejected[sender if known else "others"] += 1

    def _take(self, frames: list[memoryview]) -> Delivery | None:
        identity = bytes(frames[0])
        try:
            magic, kind, epoch, seq = PREFIX.unpack(frames[1])
        except (struct.error, IndexError):
            magic, kind = b"", b""
        known = self._names.get(identity, ("", -1))[1]
        if magic != MAGIC:
            self.reject(printable(identity))
        elif kind == Type.HELLO and len(frames) == 4 and len(frames[3]) == 8:
            after = int.from_bytes(frames[3], "little")
            self._greet(identity, bytes(frames[2]), epoch, seq, after)
        elif kind == Type.BYE and len(frames) == 2 and known == epoch:
            self._left.add(self._names[identity])
        elif kind not in {Type.DATA, Type.REMIND, Type.STATUS} or len(frames) != 5:
            self.reject(printable(identity))
        elif known != epoch:
            self.order.gaps += 1  # sent before its Hello; comes again after our Welcome
        elif kind != Type.DATA or self.order.take(self._names[identity], seq):
            numbered = seq if kind == Type.DATA else 0
            if numbered:
                self._note(self._names[identity], seq, sum(len(f) for f in frames[2:]))
            return Delivery(*self._names[identity], numbered, [*frames[2:]])
        else:
            self._owed.add(self._names[identity])
        return None

    def _note(self, name: Name, seq: int, size: int) -> None:
        self._waiting.setdefault(name, deque()).append((seq, size))
        self.waiting_bytes += size
        self.high_water = max(self.high_water, self.waiting_bytes)

    def _greet(self, identity: bytes, raw: bytes, epoch: int, acked: int, after: int) -> None:
        if identity != raw + b"/%d" % epoch or not NAME.fullmatch(raw.decode("ascii", "replace")):
            self.reject(printable(identity))
            return
        producer = raw.decode()
        name, current = (producer, epoch), self._current.get(producer, epoch)
        if current not in {epoch, after} and self._tell((producer, current)) != "gone":
            sentence = (
                f"a producer named {producer!r} is already at work (started {current} ns):"
                " give each producer its own name, or stop the other one first"
            )
            self._reply(identity, Type.REFUSE, epoch, 0, sentence.encode())
            return
        self._current[producer], self._names[identity] = epoch, name
        self._left.discard(name)
        durable = self.order.greet(name, acked)
        self._reply(identity, Type.WELCOME, epoch, durable, self.window_bytes.to_bytes(8, "little"))

    def _pay(self, name: Name) -> None:
        if self._tell(name) != "later":
            self._owed.discard(name)

    def _tell(self, name: Name) -> str:
        """Send ``name`` its durable number; "gone" when its connection no longer stands.

        zmq's heartbeat ends the connections of the dead.
        """
        identity = f"{name[0]}/{name[1]}".encode()
        seq = self.order.durable.get(name, 0)
        return self._reply(identity, Type.ACK, name[1], seq, b"\1" if self._held else b"\0")

    def _reply(self, identity: bytes, kind: bytes, epoch: int, seq: int, *more: bytes) -> str:
        prefix = PREFIX.pack(MAGIC, kind, epoch, seq)
        try:
            self._socket.send_multipart([identity, prefix, *more], zmq.NOBLOCK)
        except zmq.Again:
            return "later"
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            return "gone"
        return "sent"


class Publisher(End):
    """Sends frames to whoever listens; who cannot keep up misses some, nobody waits."""

    def __init__(self, address: str, key: Path | None = None) -> None:
        super().__init__(zmq.PUB)
        self._socket.sndhwm = 2
        self.address = self._bind(address, key)

    def send(self, frame: Frame) -> None:
        """Publish one frame; it is copied, so that nothing waits for a slow viewer's socket."""
        self._socket.send(frame, zmq.NOBLOCK)


class Subscriber(End):
    """Receives the newest frame of a publisher, whether that is there already or not."""

    def __init__(self, address: str, key: Path | None = None) -> None:
        super().__init__(zmq.SUB)
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * MAX_PAYLOAD)
        self._socket.subscribe(b"")
        self._connect(address, key)

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Newest frame not yet seen, or ``None`` when none came within ``timeout_s``."""
        return self._socket.recv() if self._socket.poll(ms(timeout_s)) else None
