"""Hits of a delay-line anode are those of exhaustive pairing in plain Python."""

from itertools import product

import numpy as np
import pytest

from ffb.reducers.delay_line import Params, delay_line
from ffb.shot import Input

ENDS = ("mcp", "x1", "x2", "y1", "y2")
ROOM = 12
P = Params((97.0, 103.0), (115.0, 122.0), 80.0, 0.5, 0.25)
RNG = np.random.default_rng(31)


def constants(p=P):
    return delay_line.constants(p, dict.fromkeys(ENDS, Input("value", "<f8", (ROOM,), "ns")))


def padded(times):
    out = np.full(ROOM, np.nan)
    kept = np.array(times)[:ROOM]
    out[: len(kept)] = kept
    return out


def struck(n, lost=0.0, noise=0.0):
    """Particles at (time, x, y), and the times at the ends; some lost, some of nothing."""
    times = np.sort(RNG.uniform(500, 900, n))
    xs, ys = RNG.uniform(-35, 35, n), RNG.uniform(-18, 18, n)
    lists = [times]
    for position, scale, total in ((xs, P.scale_x, 100), (ys, P.scale_y, 118)):
        spread = total + RNG.normal(0, 1, n)
        for sign in (1, -1):
            ends = times + (spread + sign * position / scale) / 2
            more = RNG.uniform(500, 1000, RNG.poisson(noise))
            lists.append(np.sort(np.concatenate([ends[RNG.random(n) >= lost], more])))
    return [padded(t) for t in lists], np.stack([times, xs, ys], axis=1)


def exhaustive(mcp, *ends, p=P):
    """All pairs of both layers, sorted by how far the sum is off, the first free one taken."""
    layers = []
    for first, second, (lo, hi) in ((*ends[:2], p.sum_x), (*ends[2:], p.sum_y)):
        layers.append((first, second, lo, hi, set(), set()))
    hits, incomplete = [], 0
    for t in mcp[~np.isnan(mcp)]:
        found = []
        for first, second, lo, hi, one, two in layers:
            pairs = [
                (abs(a + b - 2 * t - (lo + hi) / 2), i, j)
                for (i, a), (j, b) in product(enumerate(first), enumerate(second))
                if lo <= a + b - 2 * t <= hi and abs(a - b) <= p.reach and i not in one
                and j not in two
            ]  # fmt: skip
            found.append(min(pairs, default=None))
        if None in found:
            incomplete += 1
            continue
        row = [t]
        for (_, i, j), (first, second, _, _, one, two) in zip(found, layers, strict=True):
            one.add(i)
            two.add(j)
            row += [first[i] - second[j], first[i] + second[j] - 2 * t]
        hits.append(row)
    return np.array(hits).reshape(-1, 5), incomplete


@pytest.mark.parametrize(("lost", "noise"), [(0.0, 0.0), (0.2, 0.0), (0.1, 4.0), (1.0, 3.0)])
def test_hits_equal_exhaustive_pairing(lost, noise):
    c = constants()
    for n in (0, 1, 2, 5, 9, 14):
        for _ in range(6):
            lists, _ = struck(n, lost, noise)
            hits, incomplete = exhaustive(*lists)
            got = delay_line(*lists, c)
            assert (got.n, got.incomplete, got.overflow) == (len(hits), incomplete, False)
            expected = (
                hits[:, 1] * 0.5, hits[:, 3] * 0.25, hits[:, 0], hits[:, 2], hits[:, 4]
            )  # fmt: skip
            for mine, theirs in zip(got[2:7], expected, strict=True):
                np.testing.assert_allclose(mine[: got.n], theirs, rtol=1e-12, atol=1e-9)
                assert np.isnan(mine[got.n :]).all()


def test_particles_are_where_they_struck():
    lists, truth = struck(3)
    got = delay_line(*lists, constants())
    assert got.n == 3
    np.testing.assert_allclose(np.stack([got.time, got.x, got.y], axis=1)[:3], truth, atol=1e-9)


def test_a_missing_end_is_rebuilt_where_one_time_alone_fits():
    c, n = constants(P._replace(rebuild=True)), 0
    for _ in range(30):
        _, truth = struck(5)
        truth[:, 0] = 500 + 400 * np.arange(5)  # too far apart for another's times to fit
        lists = [truth[:, 0].copy()]
        for at, scale, total in ((truth[:, 1], 0.5, 100.0), (truth[:, 2], 0.25, 118.5)):
            lists += [truth[:, 0] + (total + sign * at / scale) / 2 for sign in (1, -1)]
        lost = RNG.integers(-1, 4, 5)  # of each, one end or none
        for hit, end in enumerate(lost):
            if end >= 0:
                lists[1 + end][hit] = np.nan
        got = delay_line(*map(padded, map(np.array, lists)), c)
        assert (got.n, got.incomplete) == (5, 0)
        found = np.stack([got.time, got.x, got.y], axis=1)[:5]
        np.testing.assert_allclose(found, truth, atol=1e-9)
        assert got.rebuilt[:5].tolist() == [0 if end < 0 else 1 + end // 2 for end in lost]
        assert np.isnan(got.sum_x[:5]).tolist() == (got.rebuilt[:5] == 1).tolist()
        assert np.isnan(got.sum_y[:5]).tolist() == (got.rebuilt[:5] == 2).tolist()
        n += (lost >= 0).sum()
    assert n > 60


def test_an_end_is_not_rebuilt_without_being_asked_nor_where_two_times_fit():
    ends = [500.0], [550.0], [550.0], [559.0], []
    got = delay_line(*map(padded, ends), constants())
    assert (got.n, got.incomplete, got.rebuilt.any()) == (0, 1, False)
    c = constants(P._replace(rebuild=True))
    assert delay_line(*map(padded, ends), c).n == 1
    two = *ends[:3], [559.0, 575.0], []
    assert delay_line(*map(padded, two), c).n == 0
    off = *ends[:3], [559.0 + P.reach], []
    assert delay_line(*map(padded, off), c).n == 0
    assert delay_line(*map(padded, ([500.0], [], [550.0], [559.0], [])), c).n == 0


def test_times_are_taken_once_and_hits_beyond_the_room_are_told():
    one = [500.0], [550.0], [550.0], [559.0], [559.0]
    twice = [padded([500.0, 500.0]), *map(padded, one[1:])]
    got = delay_line(*twice, constants())
    assert (got.n, got.incomplete) == (1, 1)
    many = [padded(np.array(t) + 200 * np.arange(5)) for t in one]
    got = delay_line(*many, constants(P._replace(capacity=3)))
    assert (got.n, got.overflow) == (5, True)
    assert got.time.tolist() == [500.0, 700.0, 900.0]


def test_bad_parameters_are_told_all_at_once():
    p = Params((5.0, 5.0), (0.0, np.inf), 0.0, 0.0, np.nan, 0)
    inputs = dict.fromkeys(ENDS, Input("value", "<f8", (ROOM,), "ns"))
    inputs["y2"] = Input("value", "<u2", (ROOM,), "ADU")
    with pytest.raises(ValueError, match="window") as e:
        delay_line.constants(p, inputs)
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "sum_x", "sum_y", "reach", "scale_x", "scale_y", "capacity", "inputs.y2",
    ]  # fmt: skip
