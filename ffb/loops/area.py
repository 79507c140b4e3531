"""Generate the pass over an area detector: calibrate rows, reduce them, add them to sums.

Rows of a block are calibrated into memory that stays in the cache, then each is handed to all
reducers, then the block is added to the sums over shots; of several shots, block by block, so that
constants and sums cross memory once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import build, kernel
from ffb.loops.fuse import ABSENT, RUN, Member, Writer, indent, plain, rebuilt, tools
from ffb.loops.places import Places
from ffb.reduce import Calibration, Tile, TileReducer, window_of
from ffb.sums.kernels import count_missed, kernel_of
from ffb.sums.words import What

#: Calibrated pixels of a block, at most: with the constants beside them they stay in the cache.
BLOCK_BYTES = 32768

#: With more reducers than these, rows are calibrated in blocks, else one by one. Memory is asked
#: for ahead as long as it is read in one go. Little work between two rows hides in the time that
#: memory takes, and wants them hot; much work is an end of reading, of which there are then fewer.
FEW = 2

#: Ways from ``block``, raw pixels, to ``shown``, calibrated ones, and ``bads``.
_ROW_BY_ROW = """\
shown = lines[: block.size]
for at in range(last - r):
    words = block[at * columns : (at + 1) * columns]
    line = lines[at * columns : (at + 1) * columns]
    bads[at] = calibrate(words, first + at * columns, planes, line)
"""
_TOGETHER = """\
shown = lines
calibrate(block, first, planes, lines, bads)
"""
_LENT = """\
shown, bads[0] = calibrate(block, first, planes, lines)
"""
_REDUCE = """\
for at in range(last - r):
    begin = first + at * columns
    line = shown[at * columns : (at + 1) * columns]
    tile = Tile(line, good[begin : begin + columns], bads[at], s * rows + r + at, begin)
"""


def block_of(calibration: Calibration, members: int, rows: int, columns: int) -> int:
    """Rows that are calibrated before any of them is reduced."""
    if calibration.height or calibration.lend or members <= FEW:
        return calibration.height or 1
    return max(1, min(rows, BLOCK_BYTES // (4 * columns)))


def added_to(
    added: Sequence[tuple[What, ...]], scope: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Lines before a loop over blocks, and for each block, that add it to sums.

    ``sums`` has for each sum the arrays of what is ``added``, its missed pixels and its levels,
    ``adds`` whether it takes these shots. A block, ``shown``, begins at ``first``; where it may
    hold NaN, ``spoilt_here`` is true.
    """
    before, each = [], []
    here = "first : first + block.size"
    for n, whats in enumerate(added):
        before.append(f"levels{n} = borrowed(sums[{n}][{len(whats) + 1}])")
        each.append(f"if adds[{n}]:")
        for k, what in enumerate(whats):
            scope[f"add_{n}_{k}"] = kernel(kernel_of(what))
            before.append(f"t{n}_{k} = borrowed(sums[{n}][{k}])")
            pixels = "block" if what.of == "raw" else "shown"
            each.append(f"    add_{n}_{k}({pixels}, levels{n}[{k}], t{n}_{k}[{here}])")
        before.append(f"missed{n} = borrowed(sums[{n}][{len(whats)}])")
        each += ["    if spoilt_here:", f"        count_missed(shown, missed{n}[{here}])"]
    scope["count_missed"] = kernel(count_missed)
    return before, each


def _sums(
    added: Sequence[tuple[What, ...]], shot: str, scope: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Lines before the loop over blocks, and for each block, that add it to sums.

    ``done`` counts the rows of each ``shot`` that are added: a pass that runs again after an
    exception adds none twice.
    """
    if not added:
        return [], []
    before, each = added_to(added, scope)
    each = ["spoilt_here = bads[: last - r].sum()", *each, f"done[{shot}] = s * rows + last"]
    return before, [f"if s * rows + r >= done[{shot}]:", *indent(each, 1)]


def _states(
    writers: Sequence[Writer], states: Sequence[Any], together: int, scope: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Lines that name constants and states of reducers: once, and for shot ``k`` of several."""
    once, each = [], []
    for w in writers:
        tag, state, name = w.tag, states[w.tag], f"S{w.tag}"
        made = rebuilt(w.member.constants, f"constants[{tag}]", f"K{tag}", scope)
        once.append(f"k{tag} = {made}")
        own = rebuilt(state, f"states[{tag}]", name, scope)  # also names its classes in the scope
        if together > 1:
            once.append(f"t{tag} = {rebuilt(plain(state), f'states[{tag}]', name, scope)}")
            own = _of_shot(state, f"t{tag}", name)
        each.append(f"s{tag} = {own}")
    return once, each


def _start(writers: Sequence[Writer]) -> list[str]:
    """Lines that bring the states of reducers to zero."""
    return [
        line
        for w in writers
        for line in (f"if active[{w.tag}] == {RUN}:", f"    start_{w.tag}(k{w.tag}, s{w.tag})")
    ]


def _reduce(writers: Sequence[Writer]) -> list[str]:
    """Lines that hand the rows of a block to reducers."""
    if not writers:
        return []
    lines = _REDUCE.splitlines()
    for w in writers:
        lines += [
            f"    if active[{w.tag}] == {RUN}{_where(w)}:",
            f"        accumulate_{w.tag}(tile, k{w.tag}, s{w.tag})",
        ]
    return lines


def _finish(writers: Sequence[Writer]) -> list[str]:
    """Lines that write the features of reducers to row ``j``."""
    lines = []
    for w in writers:
        lines += [
            f"if active[{w.tag}] == {RUN}:",
            f"    r{w.tag} = finish_{w.tag}(k{w.tag}, s{w.tag})",
            *indent(w.store(f"r{w.tag}"), 1),
            f"elif active[{w.tag}] == {ABSENT}:",
            *indent(w.absent(), 1),
        ]
    return lines


def _area(
    members: Sequence[Member],
    calibration: Calibration,
    states: Sequence[Any],
    added: Sequence[tuple[What, ...]],
    together: int,
    places: Places,
    scope: dict[str, Any],
) -> str:
    """Text of the pass over the raw pixels of up to ``together`` shots.

    With more than one, arrays of states have a first axis for them.
    """
    writers = [Writer(m, tag, places) for tag, m in enumerate(members)]
    planes = rebuilt(calibration.constants, "calibration", "Planes", scope)
    once, own = _states(writers, states, together, scope)
    shot, inner = ("k", 1) if together > 1 else ("0", 0)
    each = ["for k in range(shots):", *indent(own, 1)] if inner else own
    before, sums = _sums(added, shot, scope)
    way = _LENT if calibration.lend else _TOGETHER if calibration.height else _ROW_BY_ROW
    block = ["block = segment[r * columns : last * columns]", *way.splitlines()]
    body = [
        *places.lines,
        f"planes = {planes}",
        "good, lines, bads = borrowed(valid), borrowed(values), borrowed(spoilt)",
        "columns = values.size // spoilt.size",
        f"segments = len(raw) // {together}",
        *once,
        *([*each, *indent(_start(writers), inner)] if writers else []),
        *before,
        "for k in range(shots):",
        "    for s in range(segments):",
        "        if raw[k * segments + s].size != rows * columns:",
        "            raise ValueError('a segment has not the size the run declared')",
        "for s in range(segments):",
        *([] if inner else ["    segment = borrowed(raw[s])"]),
        "    for r in range(0, rows, bads.size):",
        "        last = min(r + bads.size, rows)",
        "        first = (s * rows + r) * columns",
        *(indent([*each, "    segment = borrowed(raw[k * segments + s])"], 2) if inner else []),
        *indent([*block, *_reduce(writers), *sums], 2 + inner),
        *([*each, "    j = where[k]"] if inner else ["j = where[0]"]),
        *indent(_finish(writers), inner),
    ]
    head = (
        "def area(raw, rows, calibration, valid, values, spoilt, active, constants, states, sums,"
        " adds, done, shots, where, buffer, table):"
    )
    return "\n".join([head, *indent(body, 1), ""])


def _where(w: Writer) -> str:
    """Condition that a row is in the window of a reducer, if it has one: a call costs 60 ns."""
    if window_of(w.member.constants) is None:
        return ""
    window = f"k{w.tag}.window"
    return f" and {window}.first <= s * rows + r + at < {window}.last"


def _of_shot(value: Any, text: str, name: str) -> str:
    """Write an expression for shot ``k`` of ``value``, whose arrays have an axis for shots."""
    if not isinstance(value, tuple):
        return f"{text}[k]" if isinstance(value, np.ndarray) else text
    parts = [_of_shot(v, f"{text}[{i}]", f"{name}_{i}") for i, v in enumerate(value)]
    made = "".join(f"{p}, " for p in parts)
    return f"{name}({made})" if hasattr(value, "_fields") else f"({made})"


def several(value: Any, shots: int) -> Any:
    """State for several shots: arrays with a first axis for them; memory is touched as for one."""
    if isinstance(value, tuple):
        parts = [several(v, shots) for v in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    if not isinstance(value, np.ndarray):
        return value
    out = np.zeros((shots, *value.shape), value.dtype)
    if value.any():
        out[:] = value
    return out


def compile_area(
    members: Sequence[Member],
    states: Sequence[Any],
    added: Sequence[tuple[What, ...]],
    calibration: Calibration,
    segments: int,
    together: int,
    places: Places,
    example: tuple[Any, ...],
) -> tuple[Any, NDArray[np.int64]]:
    """Compile the pass over an area detector, and make its argument ``table``.

    It takes the segments of ``together`` shots, one shot after the other; with more than one the
    ``states`` are those of :func:`several`.

    ``example`` are the arguments between ``raw`` and the table, which stands in ``places``.
    Raw segments are declared read-only and unaligned, as a source may hand them over, so that no
    flavour of them compiles anything later.
    """
    scope = {**tools(), "Tile": Tile, "calibrate": calibration.lend or calibration.tile}
    for tag, m in enumerate(members):
        assert isinstance(m.reducer, TileReducer)
        for f in ("start", "accumulate", "finish"):
            scope[f"{f}_{tag}"] = kernel(m.reducer.functions[f], inlined=f == "accumulate")
    pixel = numba.from_dtype(np.dtype(calibration.dtype))
    raw = numba.types.Array(pixel, 1, "C", readonly=True, aligned=False)
    source = _area(members, calibration, states, added, together, places, scope)
    rest = (numba.typeof(a) for a in (*example, places.table))
    return build(
        source, scope, (numba.types.UniTuple(raw, segments * together), *rest)
    ), places.table
