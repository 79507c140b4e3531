"""POSIX message queues, which Python's library lacks, through the C library."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

_libc = ctypes.CDLL(None, use_errno=True)
if not hasattr(_libc, "mq_open"):  # before glibc 2.34 they live in librt
    _libc = ctypes.CDLL(ctypes.util.find_library("rt"), use_errno=True)

_send, _receive = _libc.mq_send, _libc.mq_receive
_send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint]
_receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_receive.restype = ctypes.c_ssize_t


class _Attributes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("flags", "maxmsg", "msgsize", "curmsgs")),
        ("reserved", ctypes.c_long * 4),
    ]


class Queue:
    """A non-blocking queue of messages of ``size`` bytes; ``fd`` can be polled."""

    def __init__(self, name: str, *, depth: int = 0, size: int = 16) -> None:
        """Open the queue ``name``, or with a ``depth`` create it; raises ``OSError``."""
        self.name, self.size = name, size
        flags = os.O_RDWR | os.O_NONBLOCK
        if depth:
            shape = _Attributes(os.O_NONBLOCK, depth, size, 0)
            mask = os.umask(0)  # clients may run as another user
            try:
                self.fd = _libc.mq_open(
                    name.encode(), flags | os.O_CREAT, 0o666, ctypes.byref(shape)
                )
            finally:
                os.umask(mask)
        else:
            self.fd = _libc.mq_open(name.encode(), flags)
        if self.fd < 0:
            error = ctypes.get_errno()
            hint = " (depth is limited by /proc/sys/fs/mqueue/msg_max)" if depth else ""
            raise OSError(error, f"queue {name}: {os.strerror(error)}{hint}")
        self._buffer = ctypes.create_string_buffer(size)
        self._address = ctypes.addressof(self._buffer)

    def send(self, message: bytes) -> bool:
        """Put a message; ``False`` if the queue is full."""
        return bool(_send(self.fd, message, len(message), 0) == 0)

    def receive(self) -> bytes | None:
        """Take the oldest message, or ``None``."""
        n = _receive(self.fd, self._address, self.size, None)
        return self._buffer.raw[:n] if n >= 0 else None

    def close(self) -> None:
        """Close this end; the queue itself stays until it is unlinked."""
        _libc.mq_close(self.fd)


def unlink(name: str) -> bool:
    """Remove a queue; ``False`` if there was none."""
    return bool(_libc.mq_unlink(name.encode()) == 0)
