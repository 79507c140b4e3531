"""What is shed has nothing to do with what the shots hold, and 1/kept makes sums right again."""

import numpy as np
import pytest

from ffb.health import SECOND
from ffb.producing.shed import LEVELS, Shedder, Stratum, splitmix64
from ffb.shot import timestamp_of

STAMPS = [timestamp_of(1_730_000_000_000_000_000 + i * 8_333_333) for i in range(24_000)]

#: Patterns of a laser (and of a beam) by shot number.
PATTERNS = {
    "every 2nd": lambda i: i % 2 == 0,
    "every 5th": lambda i: i % 5 == 0,
    "3 on, 1 off": lambda i: i % 4 != 3,
    "every 8th": lambda i: i % 8 == 0,
    "7 on, 1 off, of 24": lambda i: i % 24 < 7,
}


def shed(pattern, level, steps=1):
    """Kept fraction of every shot, 0 for the shed ones, at a constant fill."""
    shedder = Shedder()
    fill = 1 - 0.5 ** (level + 0.5) if level else 0.0
    while shedder.level < level:
        shedder._adapt(fill)
    n = len(STAMPS)
    return np.array([
        shedder.keep(t, Stratum(1, int(pattern(i)), i * steps // n), fill, room=True)
        for i, t in enumerate(STAMPS)
    ]), shedder  # fmt: skip


def test_splitmix64_is_the_published_one():
    # Steele, Lea and Flood's generator with the seed 0 gives these first.
    assert [splitmix64(k * 0x9E37_79B9_7F4A_7C15 % (1 << 64)) for k in range(3)] == [
        0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F,
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_both_lights_keep_the_same_share_at_every_step(pattern, level):
    kept, shedder = shed(pattern, level, steps=3)
    on = np.array([pattern(i) for i in range(len(STAMPS))])
    step = np.arange(len(STAMPS)) * 3 // len(STAMPS)
    for light in (True, False):
        for s in range(3):
            of = (on == light) & (step == s)
            assert abs((kept[of] > 0).sum() - of.sum() / 2**level) <= 1
    assert set(kept) == {0.0, 0.5**level}
    assert shedder.offered[1, 1] == on.sum()
    assert shedder.kept[1, 1] == (kept[on] > 0).sum()


@pytest.mark.parametrize("period", [2, 3, 4, 5, 8, 10, 16, 24])
@pytest.mark.parametrize("level", [1, 3])
def test_what_is_kept_follows_no_pattern(period, level):
    """The kept shots of each light fall on all phases of any pattern alike: chi-square."""
    kept, _ = shed(PATTERNS["3 on, 1 off"], level)
    phase = np.arange(len(STAMPS)) % period
    on = np.array([PATTERNS["3 on, 1 off"](i) for i in range(len(STAMPS))])
    for light in (True, False):
        offered = np.bincount(phase[on == light], minlength=period)
        seen = np.bincount(phase[(on == light) & (kept > 0)], minlength=period)
        there = offered > 0
        if there.sum() < 2:
            continue
        p = 0.5**level
        expected = offered[there] * p
        chi2 = (((seen[there] - expected) ** 2) / (expected * (1 - p))).sum()
        freedom = int(there.sum())
        assert chi2 < freedom + 4 * np.sqrt(2 * freedom), (light, seen, expected)


def test_a_rule_that_counts_would_not_pass():
    """The chi-square above is able to fail: every 4th shot, by number, under 3 on, 1 off."""
    seen = np.bincount(np.arange(0, 24_000, 4) % 4, minlength=4)
    expected = np.full(4, 1500.0)
    assert (((seen - expected) ** 2) / (expected * 0.75)).sum() > 1000


def test_weighted_means_and_sums_of_each_light_stay_unbiased():
    """The window fills and empties, the level goes up and down, the signal drifts meanwhile."""
    rng = np.random.default_rng(7)
    n = len(STAMPS)
    on = np.arange(n) % 5 != 4
    drift = np.linspace(0, 1, n)
    signal = 10 + 3 * on + drift + rng.normal(0, 1, n)
    fill = 0.75 + 0.24 * np.sin(np.arange(n) / 800)
    shedder = Shedder()
    kept = np.array([
        shedder.keep(t, Stratum(1, int(on[i]), 0), float(fill[i]), room=True)
        for i, t in enumerate(STAMPS)
    ])  # fmt: skip
    assert len(set(kept)) > 4
    weight = np.where(kept > 0, 1 / np.where(kept > 0, kept, 1), 0)
    for light in (True, False):
        of = on == light
        error = 1.2 * np.sqrt((weight[of] ** 2).sum()) / weight[of].sum()
        mean = (weight * signal)[of].sum() / weight[of].sum()
        assert abs(mean - signal[of].mean()) < 4 * error
        assert weight[of].sum() == pytest.approx(of.sum(), rel=0.03)


def test_it_begins_late_goes_up_in_steps_and_comes_back_with_hysteresis():
    shedder = Shedder()

    def level(fill):
        for t in STAMPS[:20]:
            shedder.keep(t, Stratum(1, 1, 0), fill, room=True)
        return shedder.level

    assert [level(f) for f in (0.0, 0.4, 0.49)] == [0, 0, 0]
    assert [level(f) for f in (0.5, 0.7, 0.8, 0.9, 1.0)] == [1, 1, 2, 3, LEVELS]
    assert [level(f) for f in (0.9, 0.6, 0.45, 0.38)] == [LEVELS, LEVELS, 3, 2]
    assert [level(f) for f in (0.3, 0.25, 0.2)] == [1, 1, 0]


def test_without_room_nothing_is_kept_and_the_fraction_says_so():
    shedder = Shedder()
    assert shedder.fraction(0) == 1.0
    for i, t in enumerate(STAMPS[:100]):
        kept = shedder.keep(t, Stratum(-1, 1, 0), 0.0, room=i >= 60)
        assert kept == (1.0 if i >= 60 else 0.0)
    assert shedder.fraction(SECOND) == pytest.approx(0.4)
    assert (shedder.offered, shedder.kept) == ({(-1, 1): 100}, {(-1, 1): 40})
