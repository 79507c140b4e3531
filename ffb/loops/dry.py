"""Try reducers on made-up data before the first shot, where an index out of bounds is found.

What goes wrong is said in a sentence; ``""`` stands for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.loops.compile import in_short, uncompiled
from ffb.loops.fuse import Member, compile_one, plain
from ffb.reduce import Area, Reducer, Tile, TileReducer, Window, window_of
from ffb.shot import Input

#: Seconds for a frame of a tile reducer.
FRAME_S = 0.1

#: Made-up data are the same in every process.
_SEED = 20


def empty(r: TileReducer, constants: Any) -> Any:
    """Features of a tile reducer for a frame without rows: what tells their shapes.

    In plain Python: what its functions call would be compiled, in every process anew.
    """
    state = r.allocate(constants)
    with np.errstate(all="ignore"):
        uncompiled(r.functions["start"])(constants, state)
        return uncompiled(r.functions["finish"])(constants, state)


def rows(r: TileReducer, constants: Any, area: Area) -> str:
    """Run a tile reducer in plain Python, which checks bounds, on made-up frames of ``area``.

    Their rows come in order, as many as there is time for, spread evenly.
    """
    functions = {f: uncompiled(fn) for f, fn in r.functions.items()}
    state, rng = r.allocate(constants), np.random.default_rng(_SEED)
    try:
        with np.errstate(all="ignore"):
            for noise, holes in ((0, False), (50, False), (50, True)):
                functions["start"](constants, state)
                for tile in _tiles(area, window_of(constants), rng, noise, holes):
                    functions["accumulate"](tile, constants, state)
                functions["finish"](constants, state)
    except Exception as e:  # whatever it is, it is better told now than at every shot
        return in_short(e)
    return ""


def _tiles(
    area: Area, window: Window | None, rng: np.random.Generator, noise: int, holes: bool
) -> Iterator[Tile]:
    """Rows of a made-up frame: of zeros, or of noise, with NaN in every seventh pixel if asked."""
    count, columns = area.shape[0] * area.shape[1], area.shape[2]
    valid = area.mask.reshape(count, columns).astype(np.uint8)
    first, last = (window or Window(0, count, 0, columns))[:2]
    began = time.perf_counter()
    for number in range(first, last):
        part = (number + 1 - first) / (last - first)
        if number < last - 1 and time.perf_counter() - began > FRAME_S * part:
            continue
        values = rng.normal(2 * noise, noise, columns).astype(np.float32)
        if holes:
            values[::7] = np.nan
        values[valid[number] == 0] = 0
        bad = int(np.isnan(values).sum())
        yield Tile(values, valid[number], bad, number, number * columns)


def frames(member: Member, inputs: Sequence[Input]) -> tuple[Any, str]:
    """Run a whole-shot reducer, compiled with bounds checks, on made-up frames of ``inputs``.

    Returns its features for one that it did not refuse; ``None``, and why, where there is none.
    """
    assert isinstance(member.reducer, Reducer)
    features, last = None, None
    memory = plain(member.reducer.remembered(member.constants))
    for given in _frames(inputs):
        try:
            one = compile_one(member, given)
            features = one(given, plain(member.constants), memory)
        except IndexError as e:
            where = f"reads outside of its input or constants ({e})"
            return None, f"{where}; check its gates and the shapes of its inputs"
        except Exception as e:  # frames are made up: a reducer may well refuse them
            last = e
    return features, "" if features is not None else in_short(last)


def _frames(inputs: Sequence[Input]) -> Iterator[tuple[Any, ...]]:
    """Frames of each input: of zeros, then of random numbers."""
    rng = np.random.default_rng(_SEED)
    for noise in (0.0, 1.0):
        out = []
        for i in inputs:
            dtype = np.dtype(i.dtype)
            if dtype.kind in "iu":
                most = np.iinfo(dtype).max if noise else 0
                frame: NDArray[Any] = rng.integers(0, most, i.shape, dtype, endpoint=True)
            else:
                frame = np.asarray(rng.normal(100, 50, i.shape) * noise).astype(dtype)
            out.append(np.asarray(frame) if i.shape else np.asarray(frame)[()])
        yield tuple(out)
