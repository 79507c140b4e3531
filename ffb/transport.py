"""Sockets: rows travel without loss (Link to Hub), snapshots to whoever looks (PUB to SUB).

The only module that knows zmq. On the lossless way a producer numbers its messages and keeps each
until the aggregator has committed it; after every reconnection both say where they stand and the
rest is sent again, in order. On the lossy way only the newest frame counts.

Frames of the lossless way: a prefix (magic, type, epoch, seq), then what the type carries. Types
of a producer: Hello (its acknowledged seq), Data, Remind (begin_run of an open run, for an
aggregator that may have forgotten it), sTatus; of the aggregator: Welcome (the durable seq, and
the bytes that may be in flight), Ack (the durable seq), refuseX (a sentence).
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from zmq.utils.monitor import recv_monitor_message

from ffb.address import Claim, check_connect, claim, load_key
from ffb.batch import Batch
from ffb.schema import Schema
from ffb.untrusted import MAX_PAYLOAD, Frame
from ffb.window import MAX_IN_FLIGHT, Name, Order, Sent, Window, printable
from ffb.wire import Body, Header, encode

_PREFIX, _MAGIC = struct.Struct("<4scQQ"), b"ffb1"
_HELLO, _DATA, _REMIND, _STATUS, _WELCOME, _ACK, _REFUSE = b"H", b"D", b"R", b"T", b"W", b"A", b"X"
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HEARTBEAT_MS, _SILENCE_MS, _LINGER_MS = 200, 1000, 200
_HANDSHAKE = zmq.EVENT_HANDSHAKE_SUCCEEDED


class RefusedError(ConnectionError):
    """The aggregator does not want us, and says why."""


class Delivery(NamedTuple):
    """One message as it arrived, in order and once; ``seq`` is 0 for what is not numbered."""

    producer: str
    epoch: int
    seq: int
    frames: list[Frame]


class _End:
    """A socket in a context of its own and, where it listens, the sole right to the address."""

    def __init__(self, kind: int) -> None:
        self._claim: Claim | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)

    def _connect(self, address: str, key: Path | None) -> None:
        with self._closing_on_failure():
            check_connect(address, key)
            if key is not None:
                self._socket.curve_serverkey = load_key(key, secret=False)[0]
                self._socket.curve_publickey, self._socket.curve_secretkey = zmq.curve_keypair()
            self._socket.connect(address)

    def _bind(self, address: str, key: Path | None) -> str:
        with self._closing_on_failure():
            self._claim = claim(address, key)
            if key is not None:
                keys = load_key(key, secret=True)
                self._socket.curve_publickey, self._socket.curve_secretkey = keys
                self._socket.curve_server = True
            try:
                self._socket.bind(address)
            except zmq.ZMQError as e:
                raise OSError(f"cannot listen at {address}: {e.strerror}") from e
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @contextlib.contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket; another may listen here then."""
        self._context.destroy(_LINGER_MS)
        if self._claim is not None:
            self._claim.close()


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


class Link(_End):
    """A producer's end of the lossless way. One thread uses it, and pumps it often.

    ``key`` is the file with the aggregator's public CURVE key, needed for addresses of other
    hosts. Batches given to :meth:`send` belong to the link: they are kept, not copied, until
    committed. ``resent`` counts messages sent again after a reconnection, ``connected`` says
    whether the aggregator is there.
    """

    def __init__(
        self,
        address: str,
        producer: str,
        window_bytes: int = 128 << 20,
        epoch: int | None = None,
        key: Path | None = None,
    ) -> None:
        if not _NAME.fullmatch(producer):
            raise ValueError(f"producer {producer!r}: 1 to 64 letters, digits or _ . : -")
        super().__init__(zmq.DEALER)
        self.address, self.producer = address, producer
        self.epoch = time.time_ns() if epoch is None else epoch
        self.resent, self.connected = 0, False
        self._window = Window(window_bytes)
        self._helloed, self._told = 0.0, 0
        self._socket.setsockopt(zmq.ROUTING_ID, f"{producer}/{self.epoch}".encode())
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.set_hwm(0)  # the window bounds what waits here
        self._monitor = self._socket.get_monitor_socket(_HANDSHAKE | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connect(address, key)

    @property
    def room(self) -> bool:
        """Whether a batch may be begun: fewer bytes and messages in flight than allowed."""
        return self._window.room

    @property
    def unacked(self) -> int:
        """Messages sent and not yet known to be committed."""
        return len(self._window)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not yet known to be committed."""
        return self._window.bytes

    @property
    def high_water(self) -> int:
        """The most bytes ever in flight."""
        return self._window.high_water

    def send(self, header: Header, schema: Schema | None, body: Body) -> int:
        """Number a message, keep it and send it; returns its number.

        begin_run, step and end_run are always admitted, and the batch that was begun while there
        was room. Raises :class:`BufferError` when batches come in spite of a full window.
        """
        if isinstance(body, Batch) and self._window.burst:
            raise BufferError(
                f"{self.in_flight_bytes} bytes are in flight, twice the window: ask for `room`"
                " before a batch, and wait or count the shots as lost"
            )
        header = header._replace(producer=self.producer, epoch=self.epoch, seq=self._window.seq + 1)
        sent = self._window.keep(header.kind, encode(header, schema, body))
        if self.connected:
            self._data(sent)
        return sent.seq

    def status(self, numbers: Mapping[str, Any]) -> None:
        """Say how we are: not numbered, not kept, not sent while nobody listens."""
        if self.connected:
            header = Header("status", producer=self.producer, epoch=self.epoch)
            self._transmit(_STATUS, 0, encode(header, None, numbers))

    def pump(self, timeout_s: float = 0.0) -> None:
        """Take acknowledgements, notice lost and new connections, send again what that asks for.

        Waits for at most ``timeout_s`` for something to happen. Raises :class:`RefusedError`.
        """
        ready = dict(self._poller.poll(_ms(timeout_s)))
        if self._monitor in ready:
            while self._monitor.poll(0):
                self.connected = False
                if recv_monitor_message(self._monitor)["event"] == _HANDSHAKE:
                    self._hello()
        if not self.connected and time.monotonic() - self._helloed > 0.5:
            self._hello()
        with contextlib.suppress(zmq.Again):
            while True:
                self._take(self._socket.recv_multipart(zmq.NOBLOCK))

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is committed; False when that took longer than ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while self.unacked and (left := end - time.monotonic()) > 0:
            self.pump(min(left, 0.1))
        return not self.unacked

    def close(self) -> None:
        """Close the socket; what is not committed is gone."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        super().close()

    def _hello(self) -> None:
        self._helloed = time.monotonic()
        self._transmit(_HELLO, self._window.acked, [self.producer.encode()])

    def _data(self, sent: Sent) -> None:
        self._told = max(self._told, sent.seq)
        self._transmit(_DATA, sent.seq, sent.frames)

    def _transmit(self, kind: bytes, seq: int, frames: Sequence[Frame]) -> None:
        prefix = _PREFIX.pack(_MAGIC, kind, self.epoch, seq)
        try:
            self._socket.send_multipart([prefix, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:  # nobody there (IMMEDIATE): it stays in our keeping
            self.connected = False

    def _take(self, frames: list[bytes]) -> None:
        if len(frames[0]) != _PREFIX.size:
            return
        magic, kind, epoch, seq = _PREFIX.unpack(frames[0])
        if magic != _MAGIC or epoch != self.epoch:
            return
        if kind == _REFUSE:
            raise RefusedError(frames[1].decode())
        self._window.ack(seq)
        if kind == _WELCOME:
            self._window.most = min(self._window.most, int.from_bytes(frames[1], "little"))
            if not self.connected:  # a busy aggregator may answer several Hellos at once
                self._again()

    def _again(self) -> None:
        self.connected = True
        for begun in self._window.reminders():
            self._transmit(_REMIND, begun.seq, begun.frames)
        for sent in self._window:
            if not self.connected:
                return
            self.resent += sent.seq <= self._told
            self._data(sent)


class Hub(_End):
    """The aggregator's end of the lossless way.

    Listens at ``address``: ipc or loopback, elsewhere only with ``key``, the file of our secret
    CURVE key. ``durable`` says what an earlier life has committed, by (producer, epoch).
    ``rejected`` counts by sender what was not understood; ``order`` knows who has come how far.
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
        self.order = Order(durable or {})
        self._names: dict[bytes, Name] = {}
        self._current: dict[str, int] = {}
        self._owed: set[Name] = set()
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
        if self._socket.poll(_ms(timeout_s)):
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
            self._owed.add(name)
            self._pay(name)

    def reject(self, sender: str) -> None:
        """Count a message of ``sender`` that could not be understood."""
        known = sender in self.rejected or len(self.rejected) < 100
        self.rejected[sender if known else "others"] += 1

    def _take(self, frames: list[memoryview]) -> Delivery | None:
        identity = bytes(frames[0])
        try:
            magic, kind, epoch, seq = _PREFIX.unpack(frames[1])
        except (struct.error, IndexError):
            magic, kind = b"", b""
        if magic != _MAGIC:
            self.reject(printable(identity))
        elif kind == _HELLO and len(frames) == 3:
            self._greet(identity, bytes(frames[2]), epoch, seq)
        elif kind not in {_DATA, _REMIND, _STATUS} or len(frames) != 5:
            self.reject(printable(identity))
        elif self._names.get(identity, ("", -1))[1] != epoch:
            self.order.gaps += 1  # sent before its Hello; comes again after our Welcome
        elif kind != _DATA or self.order.take(self._names[identity], seq):
            numbered = seq if kind == _DATA else 0
            return Delivery(*self._names[identity], numbered, [*frames[2:]])
        else:
            self._owed.add(self._names[identity])
        return None

    def _greet(self, identity: bytes, raw: bytes, epoch: int, acked: int) -> None:
        if identity != raw + b"/%d" % epoch or not _NAME.fullmatch(raw.decode("ascii", "replace")):
            self.reject(printable(identity))
            return
        producer = raw.decode()
        name, current = (producer, epoch), self._current.get(producer, epoch)
        if current != epoch and self._tell((producer, current)) != "gone":
            sentence = (
                f"a producer named {producer!r} is already at work (started {current} ns):"
                " give each producer its own name, or stop the other one first"
            )
            self._reply(identity, _REFUSE, epoch, 0, sentence.encode())
            return
        self._current[producer], self._names[identity] = epoch, name
        durable = self.order.greet(name, acked)
        self._reply(identity, _WELCOME, epoch, durable, self.window_bytes.to_bytes(8, "little"))

    def _pay(self, name: Name) -> None:
        if self._tell(name) != "later":
            self._owed.discard(name)

    def _tell(self, name: Name) -> str:
        """Send ``name`` its durable number; "gone" when its connection no longer stands.

        zmq's heartbeat ends the connections of the dead.
        """
        identity = f"{name[0]}/{name[1]}".encode()
        return self._reply(identity, _ACK, name[1], self.order.durable.get(name, 0))

    def _reply(self, identity: bytes, kind: bytes, epoch: int, seq: int, *more: bytes) -> str:
        prefix = _PREFIX.pack(_MAGIC, kind, epoch, seq)
        try:
            self._socket.send_multipart([identity, prefix, *more], zmq.NOBLOCK)
        except zmq.Again:
            return "later"
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            return "gone"
        return "sent"


class Publisher(_End):
    """Sends frames to whoever listens; who cannot keep up misses some, nobody waits."""

    def __init__(self, address: str, key: Path | None = None) -> None:
        super().__init__(zmq.PUB)
        self._socket.sndhwm = 2
        self.address = self._bind(address, key)

    def send(self, frame: Frame) -> None:
        """Publish one frame; it is copied, so that nothing waits for a slow viewer's socket."""
        self._socket.send(frame, zmq.NOBLOCK)


class Subscriber(_End):
    """Receives the newest frame of a publisher, whether that is there already or not."""

    def __init__(self, address: str, key: Path | None = None) -> None:
        super().__init__(zmq.SUB)
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 2 * MAX_PAYLOAD)
        self._socket.subscribe(b"")
        self._connect(address, key)

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """Newest frame not yet seen, or ``None`` when none came within ``timeout_s``."""
        return self._socket.recv() if self._socket.poll(_ms(timeout_s)) else None
