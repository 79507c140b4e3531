"""Which shots a frame saw: offsets, dead time, steps, stalls, what is missing; and moments."""

import numpy as np
import pytest

from ffb.integrating.exposures import WHY, Exposures, Marks, Timing, exposures
from ffb.live.moments import moments

MS = 1_000_000
PULSES = 7583


def marks(n: int = 60, every: int = 12, **changes) -> Marks:
    """``n`` shots, 10 ms apart, of which every twelfth carries a frame."""
    i = np.arange(n)
    made = {
        "time": 1_700_000_000_000_000_000 + 10 * MS * i,
        "frames": i % every == every - 1,
        "step": np.zeros(n, np.int32),
        "pulse": 1_000_000 + PULSES * i,
    }
    return Marks(**(made | changes))


def without(m: Marks, *lost: int) -> Marks:
    return Marks(*(np.delete(column, lost) for column in m))


def told(e: Exposures) -> list[tuple[int, int, int, set[str]]]:
    names = [{k for k, (bit, _) in WHY.items() if w & bit} for w in e.why.tolist()]
    return [*zip(e.begin.tolist(), e.end.tolist(), e.frame.tolist(), names, strict=True)]


def test_an_exposure_goes_from_behind_a_frame_up_to_the_next():
    assert told(exposures(marks(40), Timing())) == [
        (0, 12, 11, {"first"}),
        (12, 24, 23, set()),
        (24, 36, 35, set()),
        (36, 40, -1, {"open"}),
    ]


def test_a_run_that_ends_with_a_frame_has_nothing_open():
    assert told(exposures(marks(24), Timing()))[-1] == (12, 24, 23, set())


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_shots_without_a_frame(n):
    m = marks(n, frames=np.zeros(n, bool))
    assert told(exposures(m, Timing())) == [(0, n, -1, {"first", "open"})] * bool(n)


def test_a_frame_that_comes_later_than_its_shots():
    """Read out for 25 ms: what came in this time is of the next exposure."""
    assert told(exposures(marks(36), Timing(delay=25 * MS))) == [
        (0, 9, 11, {"first"}),
        (9, 21, 23, set()),
        (21, 33, 35, set()),
        (33, 36, -1, {"open"}),
    ]


def test_a_frame_stamped_at_its_beginning():
    found = told(exposures(marks(36), Timing(delay=-40 * MS, length=50 * MS)))
    assert found == [
        (11, 16, 11, set()),
        (23, 28, 23, set()),
        (35, 36, 35, {"open"}),
    ]


def test_dead_time_is_in_no_exposure_nor_is_what_is_lost_in_it():
    m = without(marks(60), 14, 30, 46)  # 30 is the last before an opening
    found = exposures(m, Timing(length=50 * MS))
    assert told(found) == [
        (7, 12, 11, set()),
        (18, 23, 22, set()),
        (29, 34, 33, set()),
        (41, 45, 44, {"missing"}),
        (52, 57, 56, set()),
    ]
    assert found.missing.tolist() == [0, 0, 0, 1, 0]


def test_exposures_longer_than_since_the_frame_before_overlap_nothing():
    found = exposures(marks(36), Timing(length=500 * MS))
    assert found.begin.tolist() == [0, 12, 24]
    assert told(found)[0][3] == {"first"}
    assert told(exposures(marks(36), Timing(length=100 * MS)))[0] == (2, 12, 11, set())


def test_lost_shots_are_counted_where_they_are_missing():
    found = exposures(without(marks(60), 5, 13, 14, 30), Timing())
    assert found.missing.tolist() == [1, 2, 1, 0, 0]
    assert [bool(w & WHY["missing"][0]) for w in found.why] == [True, True, True, False, False]
    assert [e - b for b, e in zip(found.begin, found.end, strict=True)] == [11, 10, 11, 12, 12]


def test_unknown_pulse_ids_are_shots_all_the_same():
    m = marks(60)
    m.pulse[[3, 4, 20]] = 0
    assert exposures(m, Timing()).missing.tolist() == [0] * 5
    assert exposures(without(m, 5), Timing()).missing.tolist() == [1, 0, 0, 0, 0]
    m.pulse[:] = 0
    assert exposures(m, Timing()).missing.tolist() == [-1] * 5


def test_pulse_ids_that_jitter_or_alternate_are_no_gaps():
    i = np.arange(60)
    rng = np.random.default_rng(0)
    jitter = 1_000_000 + PULSES * i + rng.integers(-60, 60, 60)
    alternating = 1_000_000 + np.cumsum(np.where(i % 2, 3, 5))
    for pulse in (jitter, alternating):
        found = exposures(marks(60, pulse=pulse), Timing())
        assert found.missing.tolist() == [0] * 5
    assert exposures(without(marks(60, pulse=jitter), 30), Timing()).missing.sum() == 1


def test_a_lost_frame_is_noticed():
    m = marks(84)
    m.frames[35] = False
    assert told(exposures(m, Timing()))[2] == (24, 48, 47, {"frame_lost"})
    assert told(exposures(without(m, 35), Timing()))[2][3] == {"frame_lost", "missing"}


def test_a_step_cuts_an_exposure_unless_told_otherwise():
    m = marks(48, step=(np.arange(48) >= 18).astype(np.int32))
    assert told(exposures(m, Timing())) == [
        (0, 12, 11, {"first"}),
        (12, 18, -1, {"step"}),
        (18, 24, 23, {"step"}),
        (24, 36, 35, set()),
        (36, 48, 47, set()),
    ]
    across = told(exposures(m, Timing(across=True)))
    assert across[1] == (12, 24, 23, {"step"})
    m = marks(36, step=(np.arange(36) >= 12).astype(np.int32))  # between two frames: harmless
    assert [t[3] for t in told(exposures(m, Timing()))] == [{"first"}, set(), set()]


def test_a_stall_is_cut_in_time():
    m = marks(100, frames=np.isin(np.arange(100), [9, 19, 79, 89, 99]))
    found = told(exposures(m, Timing(longest=250 * MS)))
    assert found == [
        (0, 10, 9, {"first"}),
        (10, 20, 19, set()),
        (20, 45, -1, {"cut"}),
        (45, 70, -1, {"cut"}),
        (70, 80, 79, {"cut", "frame_lost"}),
        (80, 90, 89, set()),
        (90, 100, 99, set()),
    ]


def test_a_detector_that_never_comes_makes_pieces_of_bounded_length():
    m = marks(100, frames=np.zeros(100, bool))
    found = told(exposures(m, Timing(longest=250 * MS)))
    assert [t[:3] for t in found] == [(0, 25, -1), (25, 50, -1), (50, 75, -1), (75, 100, -1)]
    assert found[0][3] == {"first", "cut"}
    assert found[-1][3] == {"open", "cut"}


def test_frames_before_all_shots_that_they_could_have_seen():
    m = marks(3, frames=np.ones(3, bool))
    found = exposures(m, Timing(delay=15 * MS))
    assert found.begin.tolist() == [0, 0, 0, 1]
    assert found.end.tolist() == [0, 0, 1, 3]
    assert found.frame.tolist() == [0, 1, 2, -1]
    nothing = exposures(marks(1, frames=np.ones(1, bool)), Timing(delay=15 * MS, length=1))
    assert nothing.end.tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("block", [8, 200, 1 << 20])
def test_moments_of_any_intervals_are_those_of_brute_force(shape, block):
    rng = np.random.default_rng(7)
    values = rng.normal(1e6, 1, (300, *shape))
    counts = rng.random((300, *shape)) > 0.3
    values[rng.random(values.shape) < 0.1] = np.nan
    counts &= np.isfinite(values)
    counts[100:140] = False
    edges = np.sort(rng.integers(0, 300, 60)).reshape(-1, 2)
    begin, end = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
    begin, end = np.append(begin, 300), np.append(end, 300)
    found = moments(lambda a, b: (values[a:b], counts[a:b]), begin, end, shape, block)
    for k, (a, b) in enumerate(zip(begin, end, strict=True)):
        for place in np.ndindex(shape):
            x = values[a:b][(slice(None), *place)][counts[a:b][(slice(None), *place)]]
            assert found.n[(k, *place)] == len(x)
            if len(x):
                np.testing.assert_allclose(found.sum[(k, *place)], x.sum(), 1e-14)
                np.testing.assert_allclose(found.mean[(k, *place)], x.mean(), 1e-14)
                np.testing.assert_allclose(found.var[(k, *place)], x.var(), 1e-9, 1e-9)
                np.testing.assert_allclose(found.rms[(k, *place)], x.std(), 1e-9, 1e-9)
            else:
                assert np.isnan([f[(k, *place)] for f in found[1:]]).all()


def test_what_spoils_one_interval_spoils_no_other():
    values = np.ones(30)
    values[15] = 1e308
    values[16] = 1e308
    begin, end = np.array([0, 10, 20]), np.array([10, 20, 30])
    ok = np.ones(30, bool)
    found = moments(lambda a, b: (values[a:b], ok[a:b]), begin, end)
    assert found.sum[[0, 2]].tolist() == [10, 10]
    assert found.var[[0, 2]].tolist() == [0, 0]
    assert np.isinf(found.sum[1])
