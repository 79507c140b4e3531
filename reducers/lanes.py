"""Work on many samples at once, where a loop over them does not compile to that.

Every function is an instruction or two for compiled code, and says the same in numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

#: Samples at once: the bits of a number that says of which something is true.
LANES = 32

#: Pixels at once, which are float32.
BLOCK = 64

_INT = ir.IntType(32)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_FLOATS = ir.VectorType(ir.FloatType(), BLOCK)


def above(values: NDArray[np.float64], at: int, limit: float) -> Any:
    """Bit k is set if ``values[at + k]`` is above ``limit``, for k < ``LANES``; NaN is not.

    ``values`` must have as many.
    """
    return int(np.packbits(values[at : at + LANES] > limit, bitorder="little").view("<u4")[0])


def below(values: NDArray[np.float64], at: int, limit: float) -> Any:
    """Bit k is set if ``values[at + k]`` is below ``limit``, as :func:`above` says it."""
    return int(np.packbits(values[at : at + LANES] < limit, bitorder="little").view("<u4")[0])


def reaching(pixels: NDArray[np.float32], at: int, least: np.float32) -> Any:
    """Bit k is set if ``pixels[at + k]`` is at least ``least``, for k < ``BLOCK``; NaN is not.

    ``pixels`` must have as many.
    """
    return int(np.packbits(pixels[at : at + BLOCK] >= least, bitorder="little").view("<u8")[0])


def lowest(bits: int) -> Any:
    """Place of the lowest bit that is set in ``bits``, of which at least one is."""
    return (bits & -bits).bit_length() - 1


def correlate(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    at: int,
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` (``LANES``,): out[k] is the sum of weights[t] values[at + k + t] over t.

    ``values`` must have as many.
    """
    out[:] = np.correlate(values[at : at + LANES + weights.size - 1], weights)


def _place(builder: Any, data: Any, index: Any, lanes: Any = _DOUBLES) -> Any:
    """Pointer to as many ``lanes`` from ``index`` on."""
    return builder.bitcast(builder.gep(data, [index]), lanes.as_pointer())


def _all(builder: Any, value: Any, lanes: Any = _DOUBLES) -> Any:
    """``value`` in all ``lanes``."""
    nothing = ir.Constant(lanes, ir.Undefined)
    first = ir.Constant(ir.VectorType(_INT, lanes.count), [0] * lanes.count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _INT(0)), nothing, first)


def _comparing(relation: str, kind: Any, lanes: Any) -> Any:
    def compare(_: Any, values: Any, at: Any, limit: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = make_array(signature.args[0])(context, builder, args[0]).data
            place = _place(builder, data, args[1], lanes)
            found = builder.load(place, align=kind.bitwidth // 8)
            are = builder.fcmp_ordered(relation, found, _all(builder, args[2], lanes))
            bits = builder.bitcast(are, ir.IntType(lanes.count))
            return bits if lanes.count == 64 else builder.zext(bits, ir.IntType(64))

        return types.int64(values, types.int64, kind), generate

    return intrinsic(compare)


_above, _below = (_comparing(r, types.float64, _DOUBLES) for r in "><")
_reaching = _comparing(">=", types.float32, _FLOATS)


@overload(above, strict=False)  # type: ignore[untyped-decorator]
def _above_compiled(values: Any, at: Any, limit: Any) -> Any:
    return lambda values, at, limit: _above(values, at, limit)


@overload(below, strict=False)  # type: ignore[untyped-decorator]
def _below_compiled(values: Any, at: Any, limit: Any) -> Any:
    return lambda values, at, limit: _below(values, at, limit)


@overload(reaching, strict=False)  # type: ignore[untyped-decorator]
def _reaching_compiled(pixels: Any, at: Any, least: Any) -> Any:
    return lambda pixels, at, least: _reaching(pixels, at, least)


@intrinsic  # type: ignore[untyped-decorator]
def _lowest(_: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


@overload(lowest, strict=False)  # type: ignore[untyped-decorator]
def _lowest_compiled(bits: Any) -> Any:
    return lambda bits: _lowest(bits)


@intrinsic  # type: ignore[untyped-decorator]
def _correlate(_: Any, values: Any, weights: Any, at: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [make_array(signature.args[k])(context, builder, args[k]) for k in (0, 1, 3)]
        x, w, y = (a.data for a in arrays)
        total = cgutils.alloca_once_value(builder, ir.Constant(_DOUBLES, [0.0] * LANES))
        taps = builder.extract_value(arrays[1].shape, 0)
        with cgutils.for_range(builder, taps) as loop:
            found = builder.load(_place(builder, x, builder.add(args[2], loop.index)), align=8)
            weight = _all(builder, builder.load(builder.gep(w, [loop.index])))
            product = builder.fmul(found, weight, flags=["contract"])
            more = builder.fadd(builder.load(total), product, flags=["contract"])
            builder.store(more, total)
        builder.store(builder.load(total), _place(builder, y, ir.IntType(64)(0)), align=8)
        return context.get_dummy_value()

    return types.void(values, weights, types.int64, out), generate


@overload(correlate, strict=False)  # type: ignore[untyped-decorator]
def _correlate_compiled(values: Any, weights: Any, at: Any, out: Any) -> Any:
    return lambda values, weights, at, out: _correlate(values, weights, at, out)
