"""Recording inputs: every bit of what was there, and nothing of what was not."""

import numpy as np
import pytest

from ffb.batch import Batch
from ffb.loops.recorded import DAMAGED, GOOD, MISSING, Recorded, Recorder, damage_columns
from ffb.schema import CORE, Schema
from ffb.shot import FrameBlock, Input

N = 9
INPUTS = {
    "f8": Input("value", "<f8", (), "V", "a number"),
    "f4": Input("value", "<f4", (3,)),
    "picture": Input("value", "<f4", (2, 3)),
    "u1": Input("value", "<u1", ()),
    "i2": Input("value", "<i2", (5,)),
    "i8": Input("value", "<i8", ()),
    "words": Input("value", "<u2", (2,)),
    "unused": Input("value", "<u8", ()),
}
HOW = {"words": {"unpack": True}}
DETECTORS = {"a": ["f8", "f4"], "b": ["u1"], "none": []}


@pytest.fixture(scope="module")
def filled():
    """A block of random bytes, of which some are missing and some damaged, and what is recorded."""
    block, rng = FrameBlock(INPUTS, N), np.random.default_rng(3)
    block.buffer[:] = rng.integers(0, 256, block.buffer.size)
    block.present[:] = rng.random(block.present.shape) < 0.6
    block.present[2, :2] = False
    block.damage[:] = rng.choice(np.array([0, 0, 1, 1 << 11, 1 << 12, 0xF000], np.uint16), (N, 8))
    recorded = [Recorded(n, i, **HOW.get(n, {})) for n, i in INPUTS.items() if n != "unused"]
    columns = [c for r in recorded for c in r.columns] + damage_columns([*DETECTORS])
    schema = Schema((*CORE, *columns))
    batch = Batch(schema, N)
    batch.buffer[:] = 0xA5
    Recorder(schema, block, recorded, DETECTORS).rows(0, N - 1, batch.buffer)
    batch.close(N - 1)
    return block, batch


@pytest.mark.parametrize("name", ["f8", "f4", "picture", "u1", "i2", "i8"])
def test_bytes_are_those_of_the_shot_or_say_missing(filled, name):
    block, batch = filled
    got, here = batch.columns[name], block.present[: N - 1, block.index[name]]
    want = block.frames[name][: N - 1]
    assert got.dtype == want.dtype
    assert got[here].tobytes() == want[here].tobytes()
    if got.dtype.kind == "f":
        assert np.isnan(got[~here]).all()
        assert f"{name}_valid" not in batch.columns
    else:
        assert not got[~here].any()
        assert batch.columns[f"{name}_valid"].tolist() == here.tolist()


def test_bits_of_words(filled):
    block, batch = filled
    here = block.present[: N - 1, block.index["words"]]
    words = block.frames["words"][: N - 1].astype(int)
    want = [[(w[k >> 4] >> (k & 15)) & 1 for k in range(32)] for w in words]
    assert batch.columns["words"].tolist() == (np.array(want) * here[:, None]).tolist()
    assert batch.columns["words_valid"].tolist() == here.tolist()


def test_what_became_of_detectors(filled):
    block, batch = filled
    for name, inputs in DETECTORS.items():
        at = [block.index[i] for i in inputs]
        for j in range(N - 1):
            harm = any(int(block.damage[j, i]) & 0xFFF for i in at)
            state = MISSING if not block.present[j, at].any() else DAMAGED if harm else GOOD
            assert batch.columns[f"damage/{name}_state"][j] == state
            assert batch.columns[f"damage/{name}"][j] == (state == GOOD)
    assert {*batch.columns["damage/a_state"].tolist()} == {MISSING, DAMAGED, GOOD}
