"""Make a file usable whose writer was killed: what ``h5clear -s -i`` does, without HDF5's tools.

A killed writer leaves two marks in the superblock: the flag "open for writing", with which plain
readers refuse the file, and an end-of-file address that is older than the file's metadata, so that
a writer going on would allocate space that is in use. Source of the layout: HDF5 File Format
Specification 3.0, II.A "Superblock" (versions 2 and 3) and "Checksum" (Jenkins' lookup3).
"""

from __future__ import annotations

import os
import struct

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIZE, FLAGS, END_OF_FILE, CHECKSUM = 48, 11, 28, 44
WORD = 0xFFFF_FFFF


def clear(path: str | os.PathLike[str]) -> bool:
    """Clear the flags of ``path`` and let its end of file be where it is; say whether any was set.

    Only for a file that nobody is writing: hold its lease. Raises ``OSError`` when it is not an
    HDF5 file with a superblock of version 2 or 3, or its superblock is damaged.
    """
    with open(path, "r+b") as f:
        block = bytearray(f.read(SIZE))
        if len(block) < SIZE or block[:8] != SIGNATURE or block[8] not in (2, 3) or block[9] != 8:
            raise OSError(f"{os.fspath(path)}: not an HDF5 file as ffb writes it")
        if lookup3(bytes(block[:CHECKSUM])) != struct.unpack_from("<I", block, CHECKSUM)[0]:
            raise OSError(f"{os.fspath(path)}: the superblock is damaged")
        was = block[FLAGS]
        if not was:
            return False
        end = struct.unpack_from("<Q", block, END_OF_FILE)[0]
        block[FLAGS] = 0
        struct.pack_into("<Q", block, END_OF_FILE, max(end, os.fstat(f.fileno()).st_size))
        struct.pack_into("<I", block, CHECKSUM, lookup3(bytes(block[:CHECKSUM])))
        f.seek(0)
        f.write(block)
        f.flush()
        os.fsync(f.fileno())
    return True


def is_marked(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that somebody writes it, as one does whose writer was killed."""
    with open(path, "rb") as f:
        block = f.read(SIZE)
    return block[:8] == SIGNATURE and len(block) == SIZE and block[FLAGS] != 0


def _rotate(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) & WORD


def lookup3(data: bytes) -> int:
    """Bob Jenkins' 32-bit hash lookup3 (public domain), ``hashlittle`` with seed 0."""
    a = b = c = (0xDEADBEEF + len(data)) & WORD
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c, data = (a + x) & WORD, (b + y) & WORD, (c + z) & WORD, data[12:]
        for k in (4, 6, 8, 16, 19, 4):  # the three take turns, so that one line does for all
            a, b, c = b, (c + b) & WORD, (a - c) & WORD ^ _rotate(c, k)
    if not data:
        return int(c)
    x, y, z = struct.unpack("<III", data.ljust(12, b"\0"))
    a, b, c = (a + x) & WORD, (b + y) & WORD, (c + z) & WORD
    for k in (14, 11, 25, 16, 4, 14, 24):
        a, b, c = b, (c ^ b) - _rotate(b, k) & WORD, a
    return int(b)
