"""The header of a message, and what in it is not believed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ffb.messaging.untrusted import (
    MAX_COLUMNS,
    MAX_INT,
    MAX_STAMP,
    MAX_TEXT,
    WireError,
    limit,
    typed,
)

VERSION = 2
KINDS = ("begin_run", "shots", "step", "sum", "end_run", "status")

#: A column in ``Header.encoded``: its bytes in the payload and their CRC-32; zeros for rows.
CHUNK = np.dtype([("size", "<u4"), ("sum", "<u4")])


class Header(NamedTuple):
    """Who says what about which run; the rest of an envelope is read in its light.

    ``began`` is the timestamp of BeginRun. ``epoch`` is when the producer's process started [ns],
    ``seq`` counts its messages from 1; the transport fills in these two and ``producer``. ``n``,
    ``schema`` and ``read`` (int64 ns since 1970 per shot, as bytes) come from the batch, see
    :func:`ffb.wire.encode`. ``counts`` is cumulative per producer and run, as of the end of this
    message: ``{"read": shots, "lost": {reason: shots}}``. ``losses`` are those since the message
    before, each ``[reason, first timestamp, last timestamp, shots]``. ``encoded`` holds for a batch
    with compressed columns a :data:`CHUNK` for each column, as bytes.
    """

    kind: str
    exp: str = ""
    run: int = 0
    began: int = 0
    producer: str = ""
    epoch: int = 0
    seq: int = 0
    n: int = 0
    schema: bytes = b""
    read: bytes = b""
    counts: Mapping[str, Any] = {"read": 0, "lost": {}}
    losses: Sequence[Sequence[Any]] = ()
    encoded: bytes = b""


def parse(raw: Any, unknown: Counter[str]) -> Header:
    """Header in ``raw``, plain data; fields that this version does not know go to ``unknown``.

    Raises :class:`WireError`.
    """
    got = typed("header", raw, dict)
    if got.pop("v", None) != VERSION:
        raise WireError(f"protocol version is not {VERSION}: run one ffb everywhere")
    kind = got.get("kind")
    if kind not in KINDS:
        raise WireError(f"kind {str(kind)[:40]!r} is none of {', '.join(KINDS)}")
    if strange := sorted(str(k)[:40] for k in got.keys() - _HEADER.keys()):
        if kind not in {"shots", "status"}:
            raise WireError(f"{kind}: unknown header fields {strange[:5]}")
        unknown.update(strange if len(unknown) < 100 else {"others": len(strange)})
    if missing := sorted(_HEADER.keys() - got.keys()):
        raise WireError(f"{kind}: header fields {missing} are missing")
    for name, kind_of in _HEADER.items():
        value = typed(name, got[name], kind_of)
        if kind_of is int and not 0 <= value <= (MAX_STAMP if name == "began" else MAX_INT):
            raise WireError(f"{name} is out of range")
        if kind_of is str and (len(value) > MAX_TEXT or not _FILE_NAME.fullmatch(value)):
            raise WireError(f"{name} {value[:40]!r} could not be the name of a file")
    _check_counts(got["counts"])
    _check_losses(got["losses"])
    return Header(**{name: got[name] for name in _HEADER})


_FILE_NAME = re.compile(r"([A-Za-z0-9_:-][A-Za-z0-9_.:-]*)?")  # of an experiment or a producer
_HEADER: dict[str, type] = {
    "kind": str,
    "exp": str,
    "run": int,
    "began": int,
    "producer": str,
    "epoch": int,
    "seq": int,
    "n": int,
    "schema": bytes,
    "read": bytes,
    "counts": dict,
    "losses": list,
    "encoded": bytes,
}


def _check_counts(counts: dict[str, Any]) -> None:
    if counts.keys() != {"read", "lost"}:
        raise WireError("counts must hold read and lost")
    lost = typed("lost", counts["lost"], dict)
    if not all(type(c) is int and 0 <= c <= MAX_INT for c in (counts["read"], *lost.values())):
        raise WireError("counts must be whole numbers")
    if any(len(reason) > MAX_TEXT for reason in lost):
        raise WireError("a reason for a loss is too long")


def _check_losses(losses: list[Any]) -> None:
    limit("losses in one message", len(losses), MAX_COLUMNS)
    for loss in losses:
        if type(loss) is not list or [type(v) for v in loss] != [str, int, int, int]:
            raise WireError("a loss is a reason, two timestamps and a number of shots")
        reason, first, last, shots = loss
        stamps = 0 <= first <= MAX_STAMP and 0 <= last <= MAX_STAMP
        if len(reason) > MAX_TEXT or not (stamps and 0 <= shots <= MAX_INT):
            raise WireError("a loss is out of range")
