"""A rectangle of one segment in larger pixels, with all of its counts."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb import Area, Axis, Feature, Tile, Vector, tile_reducer
from ffb.reduce import Window
from ffb.reducers.checks import noted
from ffb.reducers.window import window


class Params(NamedTuple):
    """``block`` is how many rows and columns become one pixel.

    ``rows`` and ``cols``, half-open, choose a rectangle of ``segment``, all of it if left out.
    """

    block: tuple[int, int]
    segment: int = 0
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None


class Constants(NamedTuple):
    """The rectangle, rows and columns of a block, and the good pixels of each block."""

    window: Window
    height: int
    width: int
    npix: NDArray[np.int32]


class State(NamedTuple):
    """Sums float64 and counts of valid pixels int32, of each block (rows, columns)."""

    sums: NDArray[np.float64]
    npix: NDArray[np.int32]


class Rebinned(NamedTuple):
    """The rectangle in blocks, and what they rest on."""

    sum: Annotated[Vector, Feature("@", "sum of a block's valid pixels", ("row", "col"), "<f8")]
    npix: Annotated[
        Vector, Feature("1", "a block's valid pixels in this shot", ("row", "col"), "<i4")
    ]


@tile_reducer(version=1)
class rebin:  # noqa: N801
    """Sums over blocks of pixels of a rectangle of one segment.

    Blocks at the far edges are smaller where the rectangle is no multiple of them, so the sum over
    all blocks is that over all pixels. smalldata_tools' rebinning interpolates and conserves
    nothing; its mean is ``sum / npix``.
    """

    @staticmethod
    def prepare(params: Params, area: Area) -> Constants:
        """Place the rectangle; ``ValueError`` lists what does not fit."""
        height, width = params.block
        problems = []
        if height < 1 or width < 1:
            problems.append(
                f"block: {list(params.block)} is not a block; at least 1 row and column"
            )
        with noted(problems):
            w = window(area, params.segment, params.rows, params.cols)
        if problems:
            raise ValueError("\n".join(problems))
        top = w.first - params.segment * area.shape[1]
        mask = area.mask[params.segment, top : top + w.shape[0], w.start : w.stop]
        down = np.add.reduceat(mask, np.arange(0, w.shape[0], height), axis=0, dtype=np.int32)
        npix = np.add.reduceat(down, np.arange(0, w.shape[1], width), axis=1, dtype=np.int32)
        return Constants(w, height, width, npix)

    @staticmethod
    def axes(params: Params, constants: Constants) -> dict[str, Axis]:
        """Middles of the blocks, in pixels of the segment."""
        w, shape = constants.window, constants.npix.shape
        top = params.rows[0] if params.rows else 0
        out = {}
        for dim, first, size, n, end in (
            ("row", top, constants.height, shape[0], w.shape[0]),
            ("col", w.start, constants.width, shape[1], w.shape[1]),
        ):
            begin = np.arange(n) * size
            last = np.minimum(begin + size, end) - 1
            out[dim] = Axis(first + (begin + last) / 2, "pixel")
        return out

    @staticmethod
    def allocate(constants: Constants) -> State:
        """Room for the sums."""
        return State(np.zeros(constants.npix.shape), constants.npix.copy())

    @staticmethod
    def start(constants: Constants, state: State) -> None:
        """Forget the last shot."""
        state.sums[:] = 0.0
        state.npix[:] = constants.npix

    @staticmethod
    def accumulate(tile: Tile, constants: Constants, state: State) -> None:
        """Add a row to its line of blocks."""
        w, width = constants.window, constants.width
        row = tile.number - w.first
        values = tile.values[w.start : w.stop]
        sums, npix = state.sums[row // constants.height], state.npix[row // constants.height]
        for b in range(sums.size):
            block = values[b * width : (b + 1) * width]
            total, bad = 0.0, 0
            for i in range(block.size):
                v = np.float64(block[i])
                total += v if v == v else 0.0
            if tile.bad:
                for i in range(block.size):
                    bad += block[i] != block[i]
            sums[b] += total
            npix[b] -= bad

    @staticmethod
    def finish(constants: Constants, state: State) -> Rebinned:
        """Hand over the sums."""
        return Rebinned(state.sums, state.npix)


def example() -> tuple[Params, Area]:
    """Parameters, and a detector to try them on."""
    mask = np.ones((2, 9, 23), np.bool_)
    return Params((2, 5), segment=1, rows=(1, 8)), Area("example", mask.shape, mask, None, "keV")
