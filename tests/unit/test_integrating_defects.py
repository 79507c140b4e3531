"""What smalldata_tools does wrong with integrating detectors, each pinned to the right answer.

I1 to I3 and W4 are the numbers of these defects in the study of that tool.
"""

import h5py
import numpy as np
import pytest

from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.integrating.integrated import Integrated
from ffb.writers.consolidate import merge
from tests.unit.exposed import SCHEMA, shots, taken, write

N = 66


def integrated(d, **settings) -> Integrated:
    """Exposures of shots that are in memory."""
    made = IntegratingConfig(**settings)
    n = len(d["timestamp"])
    return Integrated("andor", made, SCHEMA.by_name, lambda name, rows: d[name][rows], n)


@pytest.fixture
def ones():
    """Shots whose partners are all 1, with a frame in every twelfth, and six after the last."""
    d = shots(N)
    d["gasdet/f11"][:] = d["fim/wave"][:] = 1.0
    d["cnt/n"][:] = d["cnt/present"][:] = 1
    return d


def test_i1_no_field_is_counted_twice_in_the_first_shot(ones):
    andor = integrated(ones, partners=["gasdet/*", "fim/*", "cnt/*"])
    assert andor["gasdet_sum_f11"].tolist() == [12, 12, 12, 12, 12, 6]
    assert andor["cnt_sum_n"].tolist() == [12, 12, 12, 12, 12, 6]
    assert andor["fim_sum_wave"].tolist() == [[12] * 3] * 5 + [[6] * 3]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_i2_what_is_no_number_stays_where_it_was(ones, poison):
    ones["gasdet/f11"][15] = poison
    andor = integrated(ones)
    assert andor["gasdet_sum_f11"].tolist() == [12, 11, 12, 12, 12, 6]
    assert andor["gasdet_n_f11"].tolist() == [12, 11, 12, 12, 12, 6]
    assert andor["gasdet_mean_f11"].tolist() == [1.0] * 6


def test_i3_whole_numbers_do_not_wrap(ones):
    ones["cnt/n"][:] = 60_000
    andor = integrated(ones)
    assert andor["cnt_sum_n"].tolist() == [720_000] * 5 + [360_000]


def test_i3_counts_are_of_the_values_that_were_there(ones):
    ones["cnt/present"][[0, 1, 30]] = False
    ones["cnt/n"][[0, 1, 30]] = 0
    ones["gasdet/f11"][24:36] = np.nan
    andor = integrated(ones)
    assert andor["count"].tolist() == [12, 12, 12, 12, 12, 6]
    assert andor["cnt_n_n"].tolist() == [10, 12, 11, 12, 12, 6]
    assert andor["cnt_mean_n"].tolist() == [1.0] * 6
    assert andor["gasdet_n_f11"].tolist() == [12, 12, 0, 12, 12, 6]
    assert np.isnan(andor["gasdet_sum_f11"]).tolist() == [False, False, True, False, False, False]


def test_i3_laser_on_and_off_are_apart(ones):
    ones["lightStatus/xray"][:] = 1
    ones["lightStatus/laser"][:] = np.arange(N) % 3 == 0
    ones["gasdet/f11"][:] = np.where(np.arange(N) % 3 == 0, 5.0, 1.0)
    andor = integrated(ones)
    assert andor["laser_on/gasdet_sum_f11"].tolist() == [20.0] * 5 + [10.0]
    assert andor["laser_off/gasdet_sum_f11"].tolist() == [8.0] * 5 + [4.0]
    assert andor["laser_on/gasdet_rms_f11"].tolist() == [0.0] * 6


def test_i3_what_follows_the_last_frame_is_there_and_marked(ones):
    andor = integrated(ones)
    assert andor.framed.tolist() == [True] * 5 + [False]
    assert andor.reasons() == {"first": 1, "open": 1}
    assert np.isnan(andor["full_sum"][-1])


def test_i3_what_is_a_name_is_no_summand(ones):
    """Not even on request; and a partner called variance is one as any other."""
    andor = integrated(ones, partners=["*"])
    summed = {c.name for c in andor.choice.partners}
    assert not summed & {"timestamp", "pulse_id", "step", "timing/destination", "cnt/present"}
    assert "cnt/variance" in summed
    assert integrated(ones, partners=["pulse_id", "timing/*"]).choice.partners == ()


def test_w4_exposures_have_a_length_of_their_own_and_lists_are_whole(ones, tmp_path):
    path = write(tmp_path, taken(ones, np.arange(N)), "[integrating.andor]\n")
    merge(path)
    with h5py.File(path) as file:
        assert len(file["timestamp"]) == N
        assert {len(v) for k, v in file["intg/andor"].items() if k.endswith("_f11")} == {6}
        assert len(file["intg/timestamp"]) == 6
        lengths = file["intg/andor/var_shots_len"][:]
        assert lengths.tolist() == [12] * 5 + [6]
        assert len(file["intg/andor/var_shots/pulse_id"]) == lengths.sum()
