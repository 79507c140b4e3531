"""Hits of a hexanode are those of exhaustive pairing in plain Python."""

from itertools import combinations, product

import numpy as np
import pytest

from ffb.reducers.delay_line_hex import Params, delay_line_hex
from ffb.shot import Input

ENDS = ("mcp", "u1", "u2", "v1", "v2", "w1", "w2")
ROOM = 9
P = Params(
    (97.0, 103.0), (115.0, 122.0), (88.0, 95.0), 90.0, 1.2, 0.5, 0.55, 0.45, 0.8
)  # fmt: skip
SCALES, SUMS = (P.scale_u, P.scale_v, P.scale_w), (P.sum_u, P.sum_v, P.sum_w)
RNG = np.random.default_rng(37)
LISTS = dict.fromkeys(ENDS, Input("value", "<f8", (ROOM,), "ns"))


def padded(times):
    out = np.full(ROOM, np.nan)
    kept = np.array(times)[:ROOM]
    out[: len(kept)] = kept
    return out


def struck(n, lost=0.0, noise=0.0, blur=0.1):
    """Particles at (time, x, y), and the times at the ends; some lost, some of nothing."""
    times = np.sort(RNG.uniform(500, 700, n))
    xs, ys = RNG.uniform(-18, 18, n), RNG.uniform(-18, 18, n)
    v, w = (xs - np.sqrt(3) * ys) / 2, (xs + np.sqrt(3) * ys) / 2
    lists = [times]
    for at, scale, (lo, hi) in zip((xs, v, w - P.offset_w), SCALES, SUMS, strict=True):
        for sign in (1, -1):
            ends = times + ((lo + hi) / 2 + sign * at / scale) / 2 + RNG.normal(0, blur, n)
            more = RNG.uniform(500, 800, RNG.poisson(noise))
            lists.append(np.sort(np.concatenate([ends[RNG.random(n) >= lost], more])))
    return [padded(t) for t in lists], np.stack([times, xs, ys], axis=1)


def exhaustive(mcp, *ends):
    """Of all combinations of pairs, in three layers and then in any two, the least off."""
    used, hits = [set() for _ in ends], {}

    def pairs(t, layer):
        lo, hi = SUMS[layer]
        one, two = 2 * layer, 2 * layer + 1
        for (i, a), (j, b) in product(enumerate(ends[one]), enumerate(ends[two])):
            total = a + b - 2 * t
            if lo <= total <= hi and abs(a - b) <= P.reach and i not in used[one]:
                if j in used[two]:
                    continue
                off = (total - (lo + hi) / 2) / ((hi - lo) / 2)
                at = (a - b) * SCALES[layer] + (P.offset_w if layer == 2 else 0)
                yield off**2, layer, i, j, at, total

    for layers in ([(0, 1, 2)], list(combinations(range(3), 2))):
        for k, t in enumerate(mcp):
            if np.isnan(t) or k in hits:
                continue
            options = []
            for some in layers:
                for chosen in product(*(list(pairs(t, layer)) for layer in some)):
                    cost, residual = sum(c[0] for c in chosen), np.nan
                    if len(some) == 3:
                        residual = chosen[0][4] - chosen[1][4] - chosen[2][4]
                        cost += (residual / P.tolerance) ** 2
                    if not abs(residual) > P.tolerance:
                        options.append((cost, chosen, residual))
            if not options:
                continue
            _, chosen, residual = min(options)
            at, sums = {c[1]: c[4] for c in chosen}, {c[1]: c[5] for c in chosen}
            for _, layer, i, j, *_ in chosen:
                used[2 * layer].add(i)
                used[2 * layer + 1].add(j)
            root, xy = np.sqrt(3), []
            if 0 in at and 1 in at:
                xy.append((at[0], (at[0] - 2 * at[1]) / root))
            if 0 in at and 2 in at:
                xy.append((at[0], (2 * at[2] - at[0]) / root))
            if 1 in at and 2 in at:
                xy.append((at[1] + at[2], (at[2] - at[1]) / root))
            of_layers = [sums.get(layer, np.nan) for layer in range(3)]
            hits[k] = [*np.mean(xy, axis=0), t, residual, *of_layers, sum(1 << a for a in at)]
    rows = np.array([hits[k] for k in sorted(hits)]).reshape(-1, 8)
    return rows, int((~np.isnan(mcp)).sum()) - len(rows)


@pytest.mark.parametrize(
    ("lost", "noise"), [(0.0, 0.0), (0.15, 0.0), (0.1, 3.0), (0.4, 1.0), (1.0, 3.0)]
)
def test_hits_equal_exhaustive_pairing(lost, noise):
    c, seen = delay_line_hex.constants(P, LISTS), set()
    for n in (0, 1, 2, 5, 9):
        for _ in range(3):
            lists, _ = struck(n, lost, noise)
            hits, incomplete = exhaustive(*lists)
            got = delay_line_hex(*lists, c)
            assert (got.n, got.incomplete, got.overflow) == (len(hits), incomplete, False)
            for mine, theirs in zip(got[2:10], hits.T, strict=True):
                np.testing.assert_allclose(mine[: got.n], theirs, rtol=1e-9, atol=1e-9)
                assert (np.isnan(mine) | (mine == 0))[got.n :].all()
            seen |= set(hits[:, 7].astype(int))
    assert seen == {0.0: {7}, 1.0: set()}.get(lost, {3, 5, 6, 7})


def test_particles_are_where_they_struck_whatever_two_layers_see():
    lists, truth = struck(4, blur=0.0)
    lists[3][0] = lists[5][1] = np.nan  # the layers v and w lose one each
    got = delay_line_hex(*lists, delay_line_hex.constants(P, LISTS))
    assert got.n == 4
    np.testing.assert_allclose(np.stack([got.time, got.x, got.y], axis=1)[:4], truth, atol=1e-9)
    assert sorted(got.layers[:4]) == [3, 5, 7, 7]
    whole = got.residual[: got.n][got.layers[:4] == 7]
    np.testing.assert_allclose(whole, 0, atol=1e-9)


def test_an_inconsistent_layer_is_left_out():
    ends = [500.0], [550.0], [550.0], [559.0], [559.0], [551.0], [540.0]
    lists = [*map(padded, ends)]  # w is 4.95 mm and the offset off
    got = delay_line_hex(*lists, delay_line_hex.constants(P, LISTS))
    assert (got.n, got.layers[0], got.incomplete) == (1, 3, 0)
    assert got.x[0] == got.y[0] == 0
    assert np.isnan([got.residual[0], got.sum_w[0]]).all()


def test_pairs_beyond_the_bound_are_told_and_those_least_off_are_kept():
    wide = P._replace(sum_u=(0.0, 200.0), sum_v=(0.0, 237.0), sum_w=(0.0, 183.0))
    for n in (1, 9):
        lists, truth = struck(n, blur=0.0)
        lists[0][1:] = np.nan
        hits = [
            delay_line_hex(*lists, delay_line_hex.constants(wide._replace(pairs=most), LISTS))
            for most in (81, 2)
        ]
        assert [h.crowded for h in hits] == [False, n > 1]
        for h in hits:
            assert h.n == 1
            np.testing.assert_allclose([h.time[0], h.x[0], h.y[0]], truth[0], atol=1e-9)


def test_missing_ends_are_rebuilt_where_one_time_alone_fits():
    c, names = delay_line_hex.constants(P._replace(rebuild=True), LISTS), set()
    for _ in range(20):
        lists, truth = struck(4, blur=0.0)
        shift = 400 * np.arange(4) - truth[:, 0]  # too far apart for another's times to fit
        v = (truth[:, 1] - np.sqrt(3) * truth[:, 2]) / 2
        w = truth[:, 1] - v
        truth[:, 0] += shift
        lists = [padded(truth[:, 0])]
        for at, scale, (lo, hi) in zip((truth[:, 1], v, w - P.offset_w), SCALES, SUMS, strict=True):
            lists += [
                padded(truth[:, 0] + ((lo + hi) / 2 + sign * at / scale) / 2) for sign in (1, -1)
            ]
        expected = []
        for hit in range(4):
            whole = RNG.integers(3)
            less = [layer for layer in range(3) if layer != whole]
            gone = RNG.integers(1, 3, 2)  # ends of the other layers that are lost
            if gone.sum() == 4:
                gone[0] = 1
            for layer, ends in zip(less, gone, strict=True):
                for end in RNG.permutation(2)[:ends]:
                    lists[1 + 2 * layer + end][hit] = np.nan
            expected.append(sum(1 << a for a, ends in zip(less, gone, strict=True) if ends == 1))
        got = delay_line_hex(*lists, c)
        assert (got.n, got.incomplete, got.crowded) == (4, 0, False)
        found = np.stack([got.time, got.x, got.y], axis=1)[:4]
        np.testing.assert_allclose(found, truth, atol=1e-9)
        assert got.rebuilt[:4].tolist() == expected
        assert [bin(a).count("1") for a in got.layers[:4]] == [
            1 + bin(a).count("1") for a in expected
        ]
        names |= set(expected)
        plain = delay_line_hex(*lists, delay_line_hex.constants(P, LISTS))
        assert (plain.n, plain.incomplete, plain.rebuilt.any()) == (0, 4, False)
    assert names == {1, 2, 3, 4, 5, 6}


def test_an_end_is_not_rebuilt_where_two_times_fit_or_layers_disagree():
    c = delay_line_hex.constants(P._replace(rebuild=True), LISTS)

    def hits(*ends):
        return delay_line_hex(*map(padded, ends), c).n

    u = [500.0], [550.0], [550.0]
    assert hits(*u, [559.0], [], [], []) == 1
    assert hits(*u, [559.0, 561.0], [], [], []) == 0
    assert hits(*u, [559.0], [561.0 + P.reach], [], []) == 1
    assert hits(*u, [559.25], [], [545.0], []) == 1  # v = 0 and w = 0.8 mm, within the tolerance
    assert hits(*u, [559.25], [], [555.0], []) == 0
    assert hits([500.0], [], [], [559.25], [], [545.0], []) == 0


def test_hits_beyond_the_room_are_told():
    ends = [500.0], [550.0], [550.0], [559.0], [559.0], [545.0], [545.0]
    many = [padded(np.array(t) + 200 * np.arange(5)) for t in ends]
    got = delay_line_hex(*many, delay_line_hex.constants(P._replace(capacity=3), LISTS))
    assert (got.n, got.overflow) == (5, True)
    assert got.time.tolist() == [500.0, 700.0, 900.0]


def test_bad_parameters_are_told_all_at_once():
    flat = (5.0, 5.0)
    p = Params(flat, (0.0, np.inf), flat, 0.0, 0.0, 0.0, np.nan, np.inf, np.nan, 0, 0)
    with pytest.raises(ValueError, match="window") as e:
        delay_line_hex.constants(p, {**LISTS, "w2": Input("value", "<u2", (ROOM,), "ADU")})
    assert [line.split(":")[0] for line in str(e.value).splitlines()] == [
        "sum_u", "sum_v", "sum_w", "reach", "scale_u", "scale_v", "scale_w", "capacity",
        "inputs.w2", "offset_w", "tolerance", "pairs",
    ]  # fmt: skip
