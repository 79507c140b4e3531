"""Listed pixels are those that numpy finds, on the levels too, and none goes missing unsaid."""

import numpy as np
import pytest
from hypothesis import given, settings

from ffb.reducers.sparse import Params, sparse
from tests.unit.passes import detector, member, repeated
from tests.unit.photon_frames import any_frame

SHAPE = (2, 5, 130)
MASK = np.random.default_rng(97).random(SHAPE) > 0.1
CASES = {
    "some": Params((4.0, 25.0)),
    "few": Params((1.0, np.inf), capacity=9),
    "between": Params((float(np.float32(14.9)) + 1e-9, 14.95), capacity=50),
}


@pytest.fixture(scope="module")
def found():
    """Columns of one frame."""
    area = detector(SHAPE, MASK)
    return repeated([member(n, sparse, p, area) for n, p in CASES.items()], area)


@settings(max_examples=60, deadline=None)
@given(any_frame(SHAPE))
def test_listed_are_the_pixels_between_the_levels(found, frame):
    got = found(frame)
    for name, p in CASES.items():
        low, high = p.thresholds
        kept = (
            MASK & np.isfinite(frame) & (frame.astype(float) >= low) & (frame.astype(float) <= high)
        )
        n = kept.sum()
        assert got[f"{name}/n"][0] == n
        assert got[f"{name}/overflow"][0] == (n > p.capacity)
        used = min(n, p.capacity)
        places = dict(zip(("segment", "row", "col"), np.nonzero(kept), strict=True))
        for f, values in {**places, "value": frame[kept]}.items():
            have = got[f"{name}/{f}"][0]
            np.testing.assert_array_equal(have[:used], values[:used], err_msg=f)
            assert np.all(np.isnan(have[used:]) if f == "value" else have[used:] == 0)


def test_bad_parameters_are_all_told():
    with pytest.raises(ValueError, match="thresholds: 0 must be above 0") as e:
        sparse.prepare(Params((0.0, np.inf), 0), detector(SHAPE))
    told = [line.partition(":")[0] for line in str(e.value).splitlines()]
    assert told == ["thresholds", "capacity"]
