"""Datagrams made by hand, from the layout alone: the reference that needs no psana."""

import struct

import numpy as np

CODES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
KINDS = {"str": 10, "enum": 11, "dict": 12}


def xtc(kind, payload, source=0, damage=0):
    return struct.pack("<IHHI", source, damage, kind, 12 + len(payload)) + payload


def dgram(service, stamp, *xtcs, damage=0):
    return struct.pack("<QI", stamp, service << 24 | 1) + xtc(0, b"".join(xtcs), damage=damage)


def _text(s):
    return s.encode().ljust(256, b"\0")


def names(block, detector, alg, fields, segment=0, dettype=None, version=(1, 2, 3)):
    """``fields``: {name: (numpy type or one of KINDS, rank)}."""
    number = version[0] << 16 | version[1] << 8 | version[2]
    out = struct.pack("<I", sum(r > 0 for _, r in fields.values()))
    out += _text(dettype or detector) + _text(detector) + _text(f"{detector}-{segment}")
    out += _text(alg) + struct.pack("<II", number, segment)
    for name, (kind, rank) in fields.items():
        code = KINDS[kind] if kind in KINDS else CODES.index(np.dtype(kind).str[1:])
        out += _text("") + bytes(4) + _text(name) + struct.pack("<II", code, rank)
    return xtc(4, out, block)


def data(block, fields, values, damage=0, data_first=False):
    """One ShapesData with ``values`` by field."""
    shapes, raw = b"", b""
    for name, (kind, rank) in fields.items():
        value = values[name]
        if kind == "str":
            array = np.frombuffer(value.encode() + b"\0", np.uint8)
        else:
            array = np.asarray(value, "i4" if kind in KINDS else kind)
            assert array.ndim == rank, name
        if rank:
            shapes += struct.pack("<5I", *array.shape, *(0,) * (5 - array.ndim))
        raw += array.tobytes()
    parts = [xtc(2, shapes), xtc(3, raw)]
    return xtc(1, b"".join(parts[::-1] if data_first else parts), block, damage)
