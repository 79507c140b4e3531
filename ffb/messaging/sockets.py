"""What all sockets share: heartbeats, keys, the sole right to an address, and the envelope.

Frames of the lossless way: a prefix (magic, type, epoch, seq), then what the type carries. Types
of a producer: Hello (its acknowledged seq; its name, and the epoch of the process it succeeds),
Data, Remind (begin_run of an open run, for an aggregator that may have forgotten it), sTatus, Bye
(it waits for no word any more); of the aggregator: Welcome (the durable seq; the bytes that may be
in flight), Ack (the durable seq; 1 if the disk holds it up, else 0), refuseX (a sentence).
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import zmq

from ffb.messaging.address import Claim, check_connect, claim, load_key

PREFIX, MAGIC = struct.Struct("<4scQQ"), b"ffb1"
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HEARTBEAT_MS, _SILENCE_MS, _LINGER_MS = 200, 1000, 200


class Type:
    """The byte of each type: those of a producer, then those of the aggregator."""

    HELLO, DATA, REMIND, STATUS, BYE = b"H", b"D", b"R", b"T", b"B"
    WELCOME, ACK, REFUSE = b"W", b"A", b"X"


class End:
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


def make_keys(public: Path, secret: Path) -> tuple[Path, Path]:
    """Make a CURVE key, its two halves in files for their owner alone; gives their paths."""
    halves = [k.decode() for k in zmq.curve_keypair()]
    for path, said in ((public, halves[:1]), (secret, halves)):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(
                f'{name}-key = "{key}"\n'
                for name, key in zip(("public", "secret"), said, strict=False)
            )
    return public, secret


def ms(seconds: float) -> int:
    """Milliseconds, rounded up, so that a short wait is not none."""
    return math.ceil(seconds * 1000)
