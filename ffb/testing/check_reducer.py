"""The contract every reducer keeps, as a test one line long.

``check_reducer(roi, *example())`` asserts that the compiled reducer gives what its functions give
in Python, with all that they call; that a shot's features depend on that shot alone, whatever came
before and however shots are batched, unless the reducer has a memory; that an absent shot is
missing and changes nothing else; that lists end where their counts say; that neither frames nor
constants are written to; that nothing is compiled once it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.batch import Batch
from ffb.loops.columns import columns_of
from ffb.loops.fuse import RUN, Member
from ffb.loops.guard import Guard
from ffb.loops.stages import AreaPass, ShotStage
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import Area, Reducer, Tile, TileReducer, Window, window_of
from ffb.schema import Column, Schema, column_name, present_of
from ffb.shot import FrameBlock, Input
from ffb.testing.guard import no_compilation, uncompiled

Frames = list[dict[str, Any]]
Rows = list[dict[str, Any]]


def check_reducer(
    reducer: Reducer[Any, Any] | TileReducer,
    params: Any,
    where: Area | Mapping[str, Input],
    frames: Frames | None = None,
    rtol: float = 1e-6,
) -> None:
    """Assert the contract for one set of parameters.

    ``where`` is the detector of a tile reducer, or the inputs of a whole-shot reducer by argument.
    ``frames`` are those of a few shots, by input (``"image"`` for a tile reducer, calibrated
    float32); without them some are made up, with noise, zeros, NaN and, for areas, a mask.
    """
    with np.errstate(all="ignore"):  # frames are made up, and Python warns where numba does not
        if isinstance(reducer, TileReducer):
            assert isinstance(where, Area), "a tile reducer is checked on an Area"
            _check_tile(reducer, params, where, frames, rtol)
        else:
            assert not isinstance(where, Area), "a whole-shot reducer is checked on Inputs"
            _check_shot(reducer, params, where, frames, rtol)


def _masked(area: Area) -> Area:
    """Mask some pixels, one row whole."""
    mask = area.mask & (np.random.default_rng(3).random(area.shape) > 0.1)
    mask[0, area.shape[1] // 2] = False
    return area._replace(mask=mask)


def _made_up(inputs: Mapping[str, Input]) -> Frames:
    """Five shots: zeros, noise, noise with NaN, noise, all NaN; whole numbers know no NaN."""
    rng, out = np.random.default_rng(11), []
    for k in range(5):
        shot = {}
        for name, i in inputs.items():
            dtype = np.dtype(i.dtype)
            frame = rng.normal(60.0, 50.0, i.shape) * (k > 0)
            if dtype.kind == "f":
                frame = np.where(rng.random(i.shape) < (0.05 if k == 2 else k == 4), np.nan, frame)
            elif dtype.kind == "u":
                frame = np.abs(frame)
            shot[name] = np.asarray(frame).astype(dtype)
        out.append(shot)
    return out


def _frozen(constants: Any) -> Any:
    """Copy constants, arrays read-only."""
    if isinstance(constants, np.ndarray):
        copy = constants.copy()
        copy.flags.writeable = False
        return copy
    if isinstance(constants, tuple):
        parts = [_frozen(c) for c in constants]
        return constants._make(parts) if hasattr(constants, "_make") else tuple(parts)
    return constants


def _taken(columns: Any, arrays: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    return {c.name: arrays[c.name][row].copy() for c in columns}


def _compare(
    name: str,
    columns: Iterable[Column],
    reduce: Callable[[list[int], list[int]], Rows],
    expected: Rows,
    rtol: float,
    *,
    pure: bool = True,
) -> None:
    """Hold ``reduce(shots, absent) -> rows`` against ``expected``, and against itself.

    Only of a ``pure`` reducer, one without memory, must a shot be the same beside other shots.
    """
    shots = list(range(len(expected)))
    whole = reduce(shots, [])
    for k, row in enumerate(expected):
        for feature, value in row.items():
            text = f"{name}: {feature} of shot {k}, compiled against plain Python"
            got = whole[k][column_name(name, feature)]
            np.testing.assert_allclose(got, value, rtol=rtol, atol=1e-9, err_msg=text)
    again = reduce(shots, [])
    backwards = reduce(shots[::-1], [])[::-1]
    singly = [reduce([k], [])[0] for k in shots]
    gapped = reduce(shots, [1])
    others = [(again, "run again")]
    others += [(backwards, "in reverse"), (singly, "alone")] if pure else []
    for k in shots:
        for other, text in others:
            _equal(whole[k], other[k], f"{name}: shot {k} {text}")
        if k != 1 and pure:
            _equal(whole[k], gapped[k], f"{name}: shot {k} beside an absent one")
    for column, value in gapped[1].items():
        assert _missing(value), f"{column}: absent, but {value}"
    for c in (c for c in columns if c.length):
        for k in shots:
            unused = whole[k][c.name][max(int(whole[k][c.length]), 0) :]
            assert _missing(unused), f"{c.name} of shot {k}: {unused} after its last entry"
    assert whole[0][present_of(name)]


def _missing(value: Any) -> bool:
    return bool(np.all(np.isnan(value) if np.asarray(value).dtype.kind == "f" else value == 0))


def _equal(a: Mapping[str, Any], b: Mapping[str, Any], text: str) -> None:
    for column, value in a.items():
        np.testing.assert_array_equal(value, b[column], err_msg=f"{column}; {text}")


def features_in_python(
    reducer: Reducer[Any, Any] | TileReducer,
    params: Any,
    where: Area | Mapping[str, Input],
    frames: Frames | None = None,
) -> Rows:
    """Features of each shot by the reducer's plain Python functions; see :func:`check_reducer`."""
    with np.errstate(all="ignore"):
        if isinstance(reducer, TileReducer):
            assert isinstance(where, Area)
            area, images = _area_and_images(where, frames)
            constants = _frozen(reducer.prepare(params, area))
            made = [_python(reducer, constants, area, image) for image in images]
        else:
            assert not isinstance(where, Area)
            constants = _frozen(reducer.constants(params, where))
            made = _calls(reducer, constants, frames or _made_up(where))
    return [{f: getattr(m, f) for f in reducer.selected(params)} for m in made]


def _area_and_images(where: Area, frames: Frames | None) -> tuple[Area, list[NDArray[np.float32]]]:
    area = _masked(where) if frames is None else where
    given = frames or _made_up({"image": Input("value", "<f4", area.shape)})
    return area, [np.asarray(f["image"], np.float32) for f in given]


def _calls(r: Reducer[Any, Any], constants: Any, shots: Frames) -> list[Any]:
    """Features of shots that follow each other; their frames are read-only."""
    memory = r.remembered(constants)
    tail = [] if r.params is None else [constants]
    tail += [memory] if r.remembers else []
    out = []
    for frames in shots:
        given = [_frozen(np.asarray(frames[a])) for a in r.inputs]
        out.append(_frozen(r.fn(*(g if g.ndim else g[()] for g in given), *tail)))
    return out


def _check_tile(
    r: TileReducer, params: Any, where: Area, frames: Frames | None, rtol: float
) -> None:
    area, images = _area_and_images(where, frames)
    constants = _frozen(r.prepare(params, area))
    with uncompiled():
        expected = [_python(r, constants, area, image) for image in images]
    columns = columns_of(r.name, r, params, expected[0], area.unit)
    member = Member(r.name, r, columns, constants, ("image",))
    schema, active = Schema(member.all_columns), np.full(1, RUN, np.uint8)

    def reduce(shots: list[int], absent: list[int]) -> Rows:
        batch = Batch(schema, len(shots))
        run = AreaPass((member,), Uncalibrated(area.mask, "<f4"), area, schema, len(shots))
        with no_compilation():
            for row, k in enumerate(shots):
                raw = tuple(segment.ravel() for segment in images[k])
                run(raw, row, batch.buffer, active * 0 if k in absent else active)
        return [_taken(schema.columns, batch.columns, row) for row in range(len(shots))]

    before = [image.copy() for image in images]
    features = [{f: getattr(e, f) for f in r.selected(params)} for e in expected]
    _compare(r.name, columns, reduce, features, rtol)
    np.testing.assert_array_equal(images, before, err_msg=f"{r.name} writes to its frames")


def _python(r: TileReducer, constants: Any, area: Area, image: NDArray[np.float32]) -> Any:
    """Features of a frame by the reducer's plain functions; tiles are read-only."""
    state = r.allocate(constants)
    r.functions["start"](constants, state)
    segments, rows, columns = area.shape
    values = np.where(area.mask, image, np.float32(0)).reshape(-1, columns)
    valid = area.mask.astype(np.uint8).reshape(-1, columns)
    values.flags.writeable = valid.flags.writeable = False
    first, last = (window_of(constants) or Window(0, segments * rows, 0, columns))[:2]
    for number in range(first, last):
        bad = int(np.isnan(values[number]).sum())
        tile = Tile(values[number], valid[number], bad, number, number * columns)
        r.functions["accumulate"](tile, constants, state)
    return _frozen(r.functions["finish"](constants, state))


def _check_shot(
    r: Reducer[Any, Any],
    params: Any,
    inputs: Mapping[str, Input],
    frames: Frames | None,
    rtol: float,
) -> None:
    given = frames or _made_up(inputs)
    constants = _frozen(r.constants(params, inputs))
    with uncompiled():
        expected = _calls(r, constants, given)
    columns = columns_of(r.name, r, params, expected[0], "1")
    member = Member(r.name, r, columns, constants, tuple(r.inputs))
    schema = Schema(member.all_columns)
    errors: Counter[str] = Counter()

    def reduce(shots: list[int], absent: list[int]) -> Rows:
        block, batch = FrameBlock(inputs, len(shots)), Batch(schema, len(shots))
        for row, k in enumerate(shots):
            for i, name in enumerate(block.names):
                block.frames[name][row] = given[k][name]
                block.present[row, i] = k not in absent
        filled = block.buffer.copy()
        stage = ShotStage((member,), schema, block, lambda n: Guard(n, errors, []))
        with no_compilation():
            stage.run(len(shots), batch)
        np.testing.assert_array_equal(block.buffer, filled, f"{r.name} writes to its frames")
        return [_taken(schema.columns, batch.columns, row) for row in range(len(shots))]

    features = [{f: getattr(e, f) for f in r.selected(params)} for e in expected]
    _compare(r.name, columns, reduce, features, rtol, pure=not r.remembers)
    assert not errors, errors
