"""Shots reduced together give what they give one by one, bit for bit."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest

from ffb import Feature, Tile, Value, reducer, tile_reducer
from ffb.loops import area
from tests.unit.plans import RNG, SHAPE, SPOT, plan, shot


class Bound(NamedTuple):
    """A level."""

    most: float


class Seen(NamedTuple):
    rows: np.ndarray
    words: np.ndarray


class Rows(NamedTuple):
    sum: Annotated[float, Feature("@", "sum of all rows")]
    last: Annotated[np.ndarray, Feature("@", "first pixel of each row", ("line",), "<f8")]


@tile_reducer(version=1)
class touchy:  # noqa: N801
    """Sums up rows, and gives up at a pixel above its level."""

    @staticmethod
    def prepare(params: Bound, area):
        return params

    @staticmethod
    def allocate(_):
        return Seen(np.full(2, 7.0), np.zeros((SHAPE[0] * SHAPE[1], 1)))

    @staticmethod
    def start(_, state):
        state.rows[0] = 0.0

    @staticmethod
    def accumulate(tile: Tile, constants, state):
        for i in range(tile.values.size):
            if tile.values[i] > constants.most:
                raise ValueError("too bright")
            state.rows[0] += tile.values[i]
        state.words[tile.number, 0] = tile.values[0]

    @staticmethod
    def finish(_, state) -> Rows:
        return Rows(state.rows[0] + state.rows[1], state.words[:, 0].copy())


REDUCERS = {
    "spot": SPOT,
    "bright": {"use": "threshold", "inputs": "jf", "params": {"thresholds": [150.0, float("inf")]}},
    "touchy": {"use": f"{__name__}:touchy", "inputs": "jf", "params": {"most": 250.0}},
    "twice": {"use": f"{__name__}:doubled", "inputs": "bright/sum"},
}


class Two(NamedTuple):
    value: Annotated[float, Feature("@", "twice the value")]


@reducer(version=1)
def doubled(x: Value) -> Two:
    """Twice what the area's reducer found."""
    return Two(2.0 * x)


@pytest.fixture(scope="module")
def plans():
    lights = {"laser": {"on": [183], "off": [184]}}
    whats = ["calib", "calib_square", "calib_max", "calib_thresADU150_nhits", "raw"]
    sums = {"all": {"input": "jf", "what": whats}}
    sums["lit"] = {**sums["all"], "light": ["laser"]}
    out = {}
    for k, rows in ((1, 1), (3, 4)):  # of 9: the last block of a segment is a short one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(area, "BLOCK_BYTES", 4 * SHAPE[2] * rows)
            out[k] = plan(REDUCERS, shots=7, together=k, light=lights, sums=sums)
    return out


def shots():
    """Two batches: a missing frame, one of another shape, one too bright; then only four shots."""
    codes = [(183 + k % 2,) for k in range(11)]
    out = [shot(k, codes=c) for k, c in enumerate(codes)]
    out[1] = shot(1, jf=None, codes=codes[1])
    out[3] = shot(3, jf=RNG.integers(0, 200, (2, 9, 22)).astype(np.uint16), codes=codes[3])
    for k in (4, 8):
        frame = RNG.integers(0, 200, SHAPE).astype(np.uint16)
        frame[1, 5, 2] = 900
        out[k] = shot(k, jf=frame, codes=codes[k])
    return out


def through(p, given):
    batches, rows = [], 0
    with np.errstate(all="ignore"):
        for s in given:
            if p.take(s, rows):
                batches.append(p.close())
            rows += 1
        batches.append(p.close())
    return {
        name: np.concatenate([b.columns[name] for b in batches]) for name in p.schema.by_name
    }, [b.n for b in batches]


def named(piece):
    return piece.sum, piece.light, piece.what


def test_shots_together_give_what_they_give_one_by_one(plans):
    given = shots()
    (one, sizes), (three, same) = (through(plans[k], given) for k in (1, 3))
    assert sizes == same == [7, 4]
    assert one["touchy/present"].tolist() == [k not in (1, 3, 4, 8) for k in range(11)]
    assert one["bright/present"].tolist() == [k not in (1, 3) for k in range(11)]
    assert np.unique(one["spot/sum"][one["spot/present"]]).size == 9
    assert one["twice/value"][0] == 2 * one["bright/sum"][0] > 0
    for name, column in one.items():
        np.testing.assert_array_equal(three[name], column, err_msg=name)
    pieces = {k: sorted(p.close_sums(), key=named) for k, p in plans.items()}
    assert {p.light for p in pieces[1]} == {"", "laser_on", "laser_off"}
    assert sum(p.fates.shots for p in pieces[1] if p.what == "calib_max") == 2 * 9
    for a, b in zip(pieces[1], pieces[3], strict=True):
        assert a._replace(values=None, piece=0) == b._replace(values=None, piece=0)
        np.testing.assert_array_equal(a.values, b.values, err_msg=f"{a.what} {a.light}")
    assert plans[1].errors == plans[3].errors
    assert plans[1].errors["touchy: ValueError: too bright"] == 2
    assert sum(plans[1].errors.values()) == 3


def test_frames_are_not_looked_at_after_their_shot(plans):
    p, frame = plans[3], RNG.integers(0, 200, SHAPE).astype(np.uint16)
    p.take(shot(1, jf=frame), 0)
    sum_then = float(frame.astype(np.float64)[frame >= 150].sum())
    frame[:] = 0
    assert p.close().columns["bright/sum"].tolist() == [sum_then]


def test_no_more_are_held_than_a_batch_has_shots():
    small = plan({"bright": REDUCERS["bright"]}, shots=2, together=16)
    assert small.areas[0].together == 2


def test_sums_without_a_reducer_take_several_shots():
    sums, given, pieces = {"all": {"input": "jf", "what": ["calib", "raw"]}}, shots(), []
    for k in (1, 3):
        p = plan({}, shots=7, together=k, sums=sums)
        through(p, given)
        pieces.append(sorted(p.close_sums(), key=named))
    assert {p.fates.shots for p in pieces[0]} == {9}
    for a, b in zip(*pieces, strict=True):
        np.testing.assert_array_equal(a.values, b.values, err_msg=a.what)
