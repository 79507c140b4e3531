"""Texts of places, run in plain Python, find what a block and a batch hold."""

import numpy as np
import pytest

from ffb.batch import Batch
from ffb.loops.compile import borrowed
from ffb.loops.places import Places
from ffb.schema import Column, Schema
from ffb.shot import FrameBlock, Input

CAPACITY = 5

INPUTS = {
    "area": Input("area", "<u2", (2, 3, 4)),
    "flag": Input("value", "|b1", ()),
    "counts": Input("value", "<u2", (7,)),
    "image": Input("value", "<f4", (3, 5)),
    "level": Input("value", "<f8", ()),
    "nothing": Input("value", "<f4", (0,)),
}
SCHEMA = Schema(
    (
        Column("present", "|b1"),
        Column("number", "<i4"),
        Column("vector", "<f8", (3,)),
        Column("cube", "<i2", (2, 3, 2)),
    )
)


@pytest.fixture(scope="module")
def filled():
    """A block and a batch with numbers of their own everywhere."""
    block, batch = FrameBlock(INPUTS, CAPACITY), Batch(SCHEMA, CAPACITY)
    rng = np.random.default_rng(1)
    for array in (*block.frames.values(), *batch.columns.values()):
        array[:] = rng.integers(0, 2 if array.dtype == bool else 1000, array.shape)
    return block, batch


def run(places, text, block, batch, j):
    scope = {"np": np, "borrowed": borrowed, "j": j}
    scope |= {"buffer": batch.buffer, "frames": block.buffer, "table": places.table}
    exec("\n".join([*places.lines, text]), scope)
    return scope["out"]


@pytest.mark.parametrize("j", [0, 2, CAPACITY - 1])
def test_rows_are_those_of_the_block_and_of_the_batch(filled, j):
    block, batch = filled
    places = Places(SCHEMA, CAPACITY)
    found = [(places.column(c), batch.columns[c.name]) for c in SCHEMA.columns]
    found += [(places.frame(name, block), block.frames[name]) for name in block.frames]
    for place, rows in found:
        got = run(places, f"out = {place.row}", block, batch, j)
        np.testing.assert_array_equal(got, rows[j])
        assert np.shape(got) == rows.shape[1:]


def test_frames_keep_their_type_and_truth_in_columns_is_bytes(filled):
    block, batch = filled
    places = Places(SCHEMA, CAPACITY)
    for name, rows in block.frames.items():
        assert run(places, f"out = {places.frame(name, block).row}", block, batch, 1).dtype == (
            rows.dtype
        )
    present = places.column(SCHEMA.by_name["present"])
    assert run(places, f"out = {present.row}", block, batch, 1).dtype == np.uint8


def test_what_is_written_to_a_row_touches_no_other(filled):
    block, batch = filled
    rows, before = batch.columns["vector"], batch.buffer.copy()
    row = rows[3].copy()
    places = Places(SCHEMA, CAPACITY)
    place = places.column(SCHEMA.by_name["vector"])
    run(places, f"out = {place.row}; out[:] = -1", block, batch, 3)
    np.testing.assert_array_equal(rows[3], -1)
    rows[3] = row
    np.testing.assert_array_equal(batch.buffer, before)
