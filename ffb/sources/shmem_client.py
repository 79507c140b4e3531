"""A client of psana's shared memory: the protocol of its monitoring servers, without psana.

A server of tag T owns ``/dev/shm/PdsMonitorSharedMemory_T``, equal buffers that hold a datagram
each. It tells its TCP port through the message queue ``/PdsFromMonitorDiscovery_T``, one message
for each client that may come. Messages are 16 bytes: buffer, ``buffers | queues << 8 | return
queue << 16``, bytes of a buffer (28 bits), 0. Transitions are announced over TCP and given back
there; shots through the queue ``/PdsToMonitorEvQueue_T_<client>``, and given back through the
return queue. Nothing here waits for long, and never with Python's lock held.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import mmap
import os
import select
import socket
import struct

import numpy as np

from ffb.sources.dgram_shot import Moment
from ffb.sources.xtc2 import HEADER, XTC

_MESSAGE = struct.Struct("<iIII")
_HEAD = struct.Struct("<QIIII")  # timestamp, env, source, damage and type, extent
_SIZE_BITS = 0x0FFF_FFFF
_NONBLOCK = os.O_NONBLOCK | os.O_CLOEXEC

#: Seconds for a server that told its port to accept and to welcome a client.
WELCOME = 2.0


class NoServerError(Exception):
    """There is no server to attach to at this moment; the text says what was found."""


def _library() -> ctypes.PyDLL:
    """Find the message queues of POSIX: in librt with older C libraries.

    Python's lock is kept during these calls: none of them waits, and to get the lock back from a
    busy thread may take milliseconds.
    """
    lib = ctypes.PyDLL(None, use_errno=True)
    if not hasattr(lib, "mq_open"):
        lib = ctypes.PyDLL(ctypes.util.find_library("rt"), use_errno=True)
    size, text, descriptor = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
    lib.mq_open.argtypes = [text, ctypes.c_int]
    lib.mq_receive.argtypes = [descriptor, ctypes.c_char_p, size, ctypes.c_void_p]
    lib.mq_receive.restype = ctypes.c_ssize_t
    lib.mq_send.argtypes = [descriptor, text, size, ctypes.c_uint]
    lib.mq_close.argtypes = [descriptor]
    lib.recv.argtypes = [descriptor, text, size, ctypes.c_int]
    lib.recv.restype = ctypes.c_ssize_t
    return lib


_lib = _library()
_RECEIVED = 64 * _MESSAGE.size


def _open_queue(name: str, flags: int) -> int:
    """Open an existing queue. Raises :class:`NoServerError`."""
    queue: int = _lib.mq_open(name.encode(), flags | _NONBLOCK)
    if queue < 0:
        raise NoServerError(f"no queue {name}: {os.strerror(ctypes.get_errno())}")
    return queue


class Client:
    """One attachment to the server of ``tag``, made by a single attempt.

    ``wake`` is a descriptor that ends waiting when it becomes readable. Raises
    :class:`NoServerError` where there is no server, or none that takes us. ``lost`` tells that the
    server is gone; shots that it had queued can still be taken.
    """

    def __init__(self, tag: str, wake: int) -> None:
        self._message = ctypes.create_string_buffer(_MESSAGE.size)
        self._events = self._returns = -1
        self._partial, self.lost = b"", False
        port = self._port(tag)
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), WELCOME)
        except OSError as e:
            raise NoServerError(f"the server of tag {tag!r} is not at its port {port}: {e}") from e
        try:
            self._open(tag, self._welcome(tag, wake))
        except BaseException:
            self.close()
            raise
        self._fd, self._received = self._socket.fileno(), ctypes.create_string_buffer(_RECEIVED)
        self._poll = select.poll()
        for fd in (self._fd, self._events, wake):
            self._poll.register(fd, select.POLLIN)

    def _port(self, tag: str) -> int:
        """Take an invitation; one that a killed server left behind is used up that way."""
        queue = _open_queue(f"/PdsFromMonitorDiscovery_{tag}", os.O_RDONLY)
        try:
            if _lib.mq_receive(queue, self._message, _MESSAGE.size, None) != _MESSAGE.size:
                raise NoServerError(f"the server of tag {tag!r} invites no client at this moment")
        finally:
            _lib.mq_close(queue)
        return int(_MESSAGE.unpack(self._message.raw)[0]) & 0xFFFF

    def _welcome(self, tag: str, wake: int) -> bytes:
        """Receive the first message, which tells who we are."""
        got, poll = b"", select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            while len(got) < _MESSAGE.size:
                ready = [fd for fd, _ in poll.poll(WELCOME * 1000)]
                if self._socket.fileno() not in ready:
                    raise NoServerError(f"the server of tag {tag!r} says nothing")
                if not (more := self._socket.recv(_MESSAGE.size - len(got))):
                    raise NoServerError(f"the server of tag {tag!r} has no room for another client")
                got += more
        except OSError as e:
            raise NoServerError(f"the server of tag {tag!r} hung up: {e}") from e
        return got

    def _open(self, tag: str, welcome: bytes) -> None:
        index, counts, size, _ = _MESSAGE.unpack(welcome)
        buffers, back, size = counts & 255, counts >> 16 & 255, size & _SIZE_BITS
        try:
            fd = os.open(f"/dev/shm/PdsMonitorSharedMemory_{tag}", os.O_RDONLY)  # noqa: S108
            try:
                self._memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
        except (OSError, ValueError) as e:
            raise NoServerError(f"the shared memory of tag {tag!r} cannot be mapped: {e}") from e
        if not HEADER <= size <= len(self._memory) // max(buffers, 1):
            raise NoServerError(
                f"tag {tag!r}: {buffers} buffers of {size} bytes in {len(self._memory)} bytes"
            )
        self.size, self._count = size, buffers
        whole = np.frombuffer(self._memory, np.uint8)
        self._buffers = [whole[i * size : (i + 1) * size] for i in range(buffers)]
        self._back = [_MESSAGE.pack(i, *_MESSAGE.unpack(welcome)[1:]) for i in range(buffers)]
        name = f"/PdsToMonitorEvQueue_{tag}_"
        self._events = _open_queue(f"{name}{index}", os.O_RDONLY)
        self._returns = _open_queue(f"{name}{back or index + 1}", os.O_WRONLY)

    def close(self) -> None:
        """Hang up; the server takes its buffers back. Views of them stay valid."""
        self._socket.close()
        self._fd = -1
        for queue in (self._events, self._returns):
            if queue >= 0:
                _lib.mq_close(queue)
        self._events = self._returns = -1

    def wait(self, seconds: float) -> bool:
        """Wait for anything to come, or for ``wake``; false when nothing did."""
        return bool(self._poll.poll(seconds * 1000))

    def shot(self) -> int:
        """Take the oldest shot from the queue: its buffer, -1 if there is none."""
        if _lib.mq_receive(self._events, self._message, _MESSAGE.size, None) != _MESSAGE.size:
            return -1  # none, or the server has just taken it back
        index: int = _MESSAGE.unpack(self._message.raw)[0]
        return index if 0 <= index < self._count else -1

    def moment(self, index: int) -> Moment:
        """What lies in buffer ``index``, in place."""
        stamp, env, _, _, extent = _HEAD.unpack_from(self._memory, index * self.size)
        return Moment(env >> 24 & 15, stamp, (self._buffers[index][: XTC + extent],))

    def give_back(self, index: int) -> None:
        """Return the buffer of a shot to the server."""
        # the queue has room for every buffer there is: it is full only where its server is dead
        if _lib.mq_send(self._returns, self._back[index], _MESSAGE.size, 0) != 0:
            self.lost = True

    def transitions(self) -> list[Moment]:
        """Copies of the transitions that were announced since; their buffers are given back."""
        if self.lost:
            return []
        n = _lib.recv(self._fd, self._received, _RECEIVED, socket.MSG_DONTWAIT)
        if n <= 0:
            self.lost = n == 0 or ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR)
            return []
        self._partial += self._received.raw[:n]
        out = []
        whole = len(self._partial) // _MESSAGE.size * _MESSAGE.size
        for index, *_ in _MESSAGE.iter_unpack(self._partial[:whole]):
            if 0 <= index < self._count:
                service, stamp, (view,) = self.moment(index)
                assert view is not None
                out.append(Moment(service, stamp, (view.copy(),)))
                self._answer(index)
        self._partial = self._partial[whole:]
        return out

    def _answer(self, index: int) -> None:
        try:
            self._socket.send(self._back[index], socket.MSG_NOSIGNAL)
        except OSError:
            self.lost = True
