"""A plan refuses what does not fit, all at once."""

import numba
import pytest

from ffb import Waveform, reducer
from ffb.source import Constants
from tests.unit.plans import INPUTS, PULSE, SHAPE, SPOT, STRICT, One, problems


@reducer(version=1)
def beyond(wf: Waveform) -> One:
    """Reads past the end."""
    return One(float(wf[wf.size + 3]))


def test_all_problems_are_told_at_once_with_their_paths():
    told = problems(
        {
            "spot": {**SPOT, "params": {"rows": [10, 900], "cols": [3, 18], "segment": 5}},
            "pulse": {**PULSE, "params": {"gate": [60, 70], "dt": 0.5}},
            "wrong": {**PULSE, "inputs": "jf"},
            "past": {"use": f"{__name__}:beyond", "inputs": "wf"},
            "fine": STRICT,
        }
    )
    starts = [
        "reducers.spot.params.rows: [10, 900] is off the detector; jf has rows 0..9",
        "reducers.spot.params.segment: there is no 5",
        "reducers.pulse.params.gate: [60, 70]",
        "reducers.wrong.inputs.waveform: jf is an area detector; waveform_integral takes a wave",
        "reducers.past: reads outside",
    ]
    assert len(told) == len(starts)
    for problem, start in zip(told, starts, strict=True):
        assert problem.startswith(start), problem


def test_an_input_the_run_lacks_is_a_problem():
    rest = {n: i for n, i in INPUTS.items() if n != "wf"}
    (told,) = problems({"pulse": PULSE, "spot": SPOT}, inputs=rest)
    assert told.startswith("inputs.wf: the run has no wf")


def test_missing_constants_are_a_problem():
    bare = Constants("jf", "jungfrau", SHAPE)
    (told,) = problems({"spot": SPOT, "dark": SPOT}, constants=bare)
    assert told.startswith("calibration.jf: no pedestals (constants: none)")


def test_a_file_of_constants_that_will_not_do_names_its_detector_once():
    bare, table = Constants("jf", "jungfrau", SHAPE), {"jf": {"pedestals": "nowhere.npy"}}
    (told,) = problems({"spot": SPOT}, constants=bare, calibration=table)
    assert told.startswith("calibration.jf: pedestals from nowhere.npy: cannot be read: No such")


def test_what_a_reducer_takes_is_told_in_its_own_words():
    ends = dict.fromkeys(("x1", "x2", "y1", "y2"), "wf")
    params = {"sum_x": [0, 1], "sum_y": [0, 1], "reach": 1}
    hits = {"use": "delay_line", "inputs": {"mcp": "jf", **ends}, "params": params}
    told, image = problems({"hits": hits, "image": {"use": "autocorrelation", "inputs": "jf"}})
    assert image.endswith("takes an image; the area of a roi with area = true is one")
    assert told == "reducers.hits.inputs.mcp: jf is an area detector; delay_line takes a time list"


def test_a_run_without_parameters_is_a_problem():
    late = [{"runs": "2-", **SPOT["params"]}]
    (told,) = problems({"spot": {**SPOT, "params": late}})
    assert told.startswith("reducers.spot.params: nothing is given for run 1")


def test_columns_of_one_name_or_inside_another_are_a_problem():
    (told,) = problems({"diode": PULSE, "spot": SPOT}, record=("diode",))
    assert "diode is one" in told  # said once, not of each of its columns
    (told,) = problems({"step": STRICT})[:1]
    assert told.startswith("step/present: cannot be a column, because step is one")


TILES = '''
from typing import Annotated, NamedTuple
import numba
import numpy as np
from numba import njit
from ffb import Area, Feature, Tile, tile_reducer

class Params(NamedTuple):
    """What goes wrong."""
    how: int

class State(NamedTuple):
    sums: np.ndarray

class One(NamedTuple):
    value: Annotated[float, Feature("@", "a value")]

@njit
def put(sums, at, value):
    sums[at] += value

@tile_reducer(version=1)
class tiles:
    """Puts a row's first value where there may be no room."""

    @staticmethod
    def prepare(params: Params, area: Area) -> Params:
        return params

    @staticmethod
    def allocate(params: Params) -> State:
        return State(np.zeros(3))

    @staticmethod
    def start(params: Params, state: State) -> None:
        state.sums[:] = 0

    @staticmethod
    def accumulate(tile: Tile, params: Params, state: State) -> None:
        if tile.number == 17:
            BODY

    @staticmethod
    def finish(params: Params, state: State) -> One:
        return One(state.sums[0])
'''


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("put(state.sums, params.how, tile.values[0])", "IndexError: index 3 is out of bounds"),
        pytest.param(
            "state.sums[0] = tile._asdict()['bad']",
            "TypingError",
            marks=pytest.mark.skipif(
                numba.config.DISABLE_JIT, reason="only the compiler refuses it, and it is off"
            ),
        ),
    ],
)
def test_a_tile_reducer_that_goes_wrong_is_a_problem(tmp_path, body, says):
    (tmp_path / "tonight.py").write_text(TILES.replace("BODY", body))
    given = {"use": f"{tmp_path}/tonight.py:tiles", "inputs": "jf", "params": {"how": 3}}
    (told,) = problems({"spot": SPOT, "mine": given})
    assert told.startswith(f"reducers.mine: {says}")
