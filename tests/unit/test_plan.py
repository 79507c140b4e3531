"""A plan refuses what does not fit, all at once; reduces shots; outlives failing reducers."""

from typing import Annotated, NamedTuple

import numpy as np
import pytest

import ffb
from ffb import Axis, Feature, Value, Waveform, config, reducer
from ffb.dashboards.model import Snapshot
from ffb.guard import PATIENCE
from ffb.live import Live
from ffb.plan import Plan
from ffb.shot import BeginStep, Input
from ffb.sink import Counts
from ffb.source import Constants, RunInfo
from ffb.testing.listed import ListedRun, ListedShot
from ffb.wire import Decoder, Header, encode, unpack
from ffb.writers.small_data import SmallData

SHAPE = (2, 9, 23)
RNG = np.random.default_rng(5)
INPUTS = {
    "jf": Input("area", "<u2", SHAPE),
    "wf": Input("value", "<i2", (64,), "V"),
    "diode": Input("value", "<f8", (), "mJ"),
    "mode": Input("value", "<i4", ()),
    "line": Input("value", "<f4", (3,)),
}
TABLES = {n: {"detector": n, "field": "raw"} for n in INPUTS}
SPOT = {"use": "roi", "inputs": "jf", "params": {"rows": [2, 7], "cols": [3, 18], "segment": 1}}
PULSE = {"use": "waveform_integral", "inputs": "wf", "params": {"gate": [20, 45], "dt": 0.5}}


class Low(NamedTuple):
    """A level."""

    level: float


class One(NamedTuple):
    value: Annotated[float, Feature("@", "the value")]


@reducer(version=3)
def strict(x: Value, low: Low) -> One:
    """Refuses what is too low."""
    if x < low.level:
        raise ValueError("too low")
    return One(float(x))


@reducer(version=1)
def both(wf: Waveform, x: Value) -> One:
    """Two inputs, no parameters."""
    return One(float(wf[0]) + float(x))


class Cut(NamedTuple):
    samples: Annotated[np.ndarray, Feature("@", "some samples", ("sample",), "<f8")]


@reducer(version=1)
def cut(wf: Waveform) -> Cut:
    """As many samples as the first one says."""
    return Cut(wf[: 2 + abs(wf[0]) % 7].astype(np.float64))


@reducer(version=1)
def beyond(wf: Waveform) -> One:
    """Reads past the end."""
    return One(float(wf[wf.size + 3]))


STRICT = {"use": f"{__name__}:strict", "inputs": "diode", "params": {"level": -1000.0}}


def plan(reducers, *, shots=4, record=(), constants=None, motors=(), light=None, inputs=INPUTS):
    tables = {n: {**t, "record": n in record} for n, t in TABLES.items()}
    made = config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": tables,
            "calibration": {"jf": "none"} if constants is None else {},
            "batch": {"shots": shots},
            "light": light or {},
            "reducers": reducers,
        }
    )
    known = {"jf": constants} if constants else {}
    with np.errstate(all="ignore"):
        return Plan.make(made, ListedRun(inputs, (), known, motors))


def shot(k=1, **frames):
    full = {
        "jf": RNG.integers(0, 200, SHAPE).astype(np.uint16),
        "wf": RNG.integers(-100, 100, 64).astype(np.int16),
        "diode": 1.5 * k,
        "mode": k,
        "line": np.full(3, k, np.float32),
    }
    codes = frames.pop("codes", ())
    return ListedShot(100 + k, {**full, **frames}, codes)


def feed(p, shots):
    for k, s in enumerate(shots):
        p.take(s, 1000 + k)
    with np.errstate(all="ignore"):
        return p.close().columns


def test_a_batch_holds_every_column_of_the_schema_and_the_right_numbers():
    p = plan({"spot": SPOT, "pulse": PULSE, "diode2": STRICT}, record=("diode", "mode", "line"))
    shots = [shot(k) for k in range(1, 4)]
    columns = feed(p, shots)
    assert list(columns) == [c.name for c in p.schema.columns]
    assert columns["timestamp"].tolist() == [101, 102, 103]
    assert columns["pulse_id"].tolist() == [1000, 1001, 1002]
    box = [s.frames["jf"][1, 2:7, 3:18].astype(float) for s in shots]
    np.testing.assert_allclose(columns["spot/sum"], [b.sum() for b in box])
    gates = [s.frames["wf"][20:45].astype(float).sum() * 0.5 for s in shots]
    np.testing.assert_allclose(columns["pulse/area"], gates)
    assert columns["diode2/value"].tolist() == columns["diode"].tolist() == [1.5, 3.0, 4.5]
    assert columns["line"].tolist() == [[1] * 3, [2] * 3, [3] * 3]
    for name in ("spot", "pulse", "diode2"):
        assert columns[f"{name}/present"].all()
    units = {n: p.schema.by_name[n].unit for n in ("spot/sum", "pulse/area", "diode2/value")}
    assert units == {"spot/sum": "ADU", "pulse/area": "V ns", "diode2/value": "mJ"}


def test_take_says_when_the_batch_is_full_and_batches_are_independent():
    p = plan({"spot": SPOT, "pulse": PULSE}, shots=2)
    shots = [shot(k) for k in range(4)]
    assert [p.take(s, k) for k, s in enumerate(shots[:2])] == [False, True]
    first = p.close()
    kept = {n: c.copy() for n, c in first.columns.items()}
    assert p.close() is None
    p.take(shots[2], 7)
    second = p.close()
    assert (first.n, second.n) == (2, 1)
    assert (first.read.tolist(), second.read.tolist()) == ([0, 1], [7])
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, kept[name])
    alone = feed(plan({"spot": SPOT, "pulse": PULSE}), [shots[2]])
    for name in ("spot/sum", "pulse/area"):
        assert second.columns[name][0] == alone[name][0]


def test_what_a_shot_lacks_is_missing_in_its_row_only():
    p = plan({"spot": SPOT, "pulse": PULSE, "sum": {"use": f"{__name__}:both",
              "inputs": {"wf": "wf", "x": "diode"}}}, record=("diode", "mode"))  # fmt: skip
    shots = [shot(1), shot(2, jf=None), shot(3, wf=None, mode=None), shot(4, diode=None)]
    columns = feed(p, shots)
    present = {n: columns[f"{n}/present"].tolist() for n in ("spot", "pulse", "sum")}
    assert present == {
        "spot": [True, False, True, True],
        "pulse": [True, True, False, True],
        "sum": [True, True, False, False],
    }
    assert np.isnan(columns["spot/mean"]).tolist() == [False, True, False, False]
    assert columns["spot/npix"].tolist() == [75, 0, 75, 75]
    assert np.isnan(columns["diode"]).tolist() == [False, False, False, True]
    assert columns["mode"].tolist() == [1, 2, 0, 4]
    assert columns["mode_valid"].tolist() == [True, True, False, True]


def test_a_new_batch_never_shows_an_old_ones_values():
    p = plan({"spot": SPOT, "pulse": PULSE}, shots=1)
    feed(p, [shot(1)])
    columns = feed(p, [shot(2, jf=None, wf=None)])
    assert np.isnan([columns["spot/sum"][0], columns["pulse/area"][0]]).all()
    assert not columns["spot/present"][0]


def test_steps_and_motors_belong_to_the_shots_after_them():
    p = plan({}, motors=("delay", "angle"))
    p.take(shot(1), 0)
    p.step(BeginStep(0, {"delay": 2.5}))
    p.step(BeginStep(1, {"delay": 3.5, "angle": 1.0}))
    p.take(shot(2), 0)
    p.take(shot(3), 0)
    p.step(BeginStep(2, {"delay": 4.5, "angle": 2.0}))
    columns = p.close().columns
    assert columns["step"].tolist() == [-1, 1, 1]
    np.testing.assert_array_equal(columns["scan/delay"], [np.nan, 3.5, 3.5])
    assert feed(p, [shot(4)])["scan/angle"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("on", "off", "states"),
    [
        ([183], [184], [1, 0, 0, -1, -1]),
        ([183, 7], [], [1, 0, 1, 0, -1]),
        ([], [184], [1, 0, 0, 1, -1]),
        ([], [], [-1, -1, -1, -1, -1]),
        ([287], [0], [-1, -1, -1, -1, -1]),
    ],
)
def test_light_follows_the_event_codes(on, off, states):
    """Shots with: on; off; both; neither; no timing."""
    p = plan({}, shots=8, light={"laser": {"on": on, "off": off}})
    shots = [shot(codes=c) for c in ((183, 40), (184,), (183, 184), (40,), None)]
    columns = feed(p, shots)
    assert columns["lightStatus/laser"].tolist() == states
    assert columns["lightStatus/xray"].tolist() == [-1] * 5


def test_light_sees_the_first_and_the_last_code():
    p = plan({}, light={"laser": {"on": [287], "off": [0]}})
    assert feed(p, [shot(codes=(287,)), shot(codes=(0,))])["lightStatus/laser"].tolist() == [1, 0]


def test_a_failure_costs_one_reducer_one_shot():
    p = plan({"pulse": PULSE, "diode2": {**STRICT, "params": {"level": -5.0}}})
    columns = feed(p, [shot(1), shot(2, diode=-6.0), shot(3)])
    assert columns["diode2/present"].tolist() == [True, False, True]
    np.testing.assert_array_equal(columns["diode2/value"], [1.5, np.nan, 4.5])
    assert columns["pulse/present"].all()
    assert dict(p.errors) == {"diode2: ValueError: too low": 1}
    assert not [n for n in p.notes if "suspended" in n]


def test_a_reducer_that_keeps_failing_is_suspended_and_the_others_go_on():
    p = plan({"pulse": PULSE, "diode2": {**STRICT, "params": {"level": -5.0}}}, shots=50)
    for _ in range(PATIENCE // 50 + 1):
        columns = feed(p, [shot(k, diode=-6.0) for k in range(50)])
        assert columns["pulse/present"].all()
    assert p.errors.total() == PATIENCE
    assert any("diode2 is suspended" in n for n in p.notes)
    columns = feed(p, [shot(1)])
    assert (columns["diode2/present"][0], columns["pulse/present"][0]) == (False, True)
    assert np.isnan(columns["diode2/value"][0])


def test_a_success_between_failures_prevents_suspension():
    p = plan({"diode2": {**STRICT, "params": {"level": -5.0}}}, shots=PATIENCE)
    for _ in range(3):
        feed(p, [shot(k, diode=-6.0) for k in range(PATIENCE - 1)] + [shot(1)])
    assert p.errors.total() == 3 * (PATIENCE - 1)
    assert feed(p, [shot(1)])["diode2/present"][0]


def test_a_feature_may_not_change_its_shape():
    p = plan({"cut": {"use": f"{__name__}:cut", "inputs": "wf"}})
    (size,) = p.schema.by_name["cut/samples"].shape
    fits, longer = np.zeros(64, np.int16), np.zeros(64, np.int16)
    fits[0], longer[0] = size - 2, (size - 1) % 7
    columns = feed(p, [shot(wf=fits), shot(wf=longer)])
    assert columns["cut/present"].tolist() == [True, False]
    assert any("changed its shape" in e for e in p.errors)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((3, 9, 23), np.uint16), "frame of 3 segments; the run declared 2"),
        (np.zeros((2, 8, 23), np.uint16), "segment uint16 (184,)"),
        (np.zeros((2, 9, 23), np.float32), "segment float32 (207,)"),
    ],
    ids=["segments", "size", "dtype"],
)
def test_a_frame_of_another_shape_is_missing_and_counted(frame, says):
    p = plan({"spot": SPOT})
    columns = feed(p, [shot(1), shot(2, jf=frame), shot(3)])
    if frame.dtype == np.uint16 or not columns["spot/present"][1]:
        assert columns["spot/present"].tolist() == [True, False, True]
        assert next(iter(p.errors)).startswith(f"jf: {says}")
        assert np.isnan(columns["spot/sum"][1])


def test_frames_may_be_read_only_and_unaligned():
    p = plan({"spot": SPOT})
    whole = shot(1)
    odd = shot(1, jf=whole.frames["jf"])
    shifted = []
    for s in whole.frames["jf"]:
        raw = np.frombuffer(b"\0" + s.tobytes(), np.uint8)[1:].view(np.uint16)
        assert not raw.flags.writeable
        shifted.append(raw)
    odd.segments = lambda name: shifted
    columns = feed(p, [whole, odd])
    assert columns["spot/sum"][0] == columns["spot/sum"][1]


def test_nothing_compiles_while_shots_are_taken():
    from numba.core import event

    p = plan({"spot": SPOT, "pulse": PULSE, "diode2": STRICT}, record=("mode",))
    with event.install_recorder("numba:compile") as recorder:
        feed(p, [shot(1), shot(2, jf=None, wf=None), shot(3, diode=-2000.0)])
    assert [e for _, e in recorder.buffer] == []


def test_jungfrau_is_calibrated_by_its_constants():
    ranges = (3, *SHAPE)
    constants = Constants(
        "jf",
        "jungfrau",
        SHAPE,
        pedestals=np.full(ranges, 100, np.float32),
        gain=np.full(ranges, 2, np.float32),
        status=np.zeros(ranges, np.uint8),
        origin="tests",
        ids={"pedestals": "made up"},
    )
    constants.status[0, 1, 2, 3] = 1
    p = plan({"spot": SPOT}, constants=constants)
    raw = np.full(SHAPE, 110, np.uint16)
    columns = feed(p, [shot(1, jf=raw)])
    assert columns["spot/npix"][0] == 74
    np.testing.assert_allclose(columns["spot/mean"], [5.0])
    assert p.schema.by_name["spot/sum"].unit == "keV"
    assert p.provenance().constants["jf"]["pedestals"] == "made up"


def problems(reducers, **more):
    with pytest.raises(config.ConfigError) as e:
        plan(reducers, **more)
    return list(e.value.problems)


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
    assert told.startswith("calibration.jf: ")
    assert "pedestals" in told


def test_a_run_without_parameters_is_a_problem():
    late = [{"runs": "2-", **SPOT["params"]}]
    (told,) = problems({"spot": {**SPOT, "params": late}})
    assert told.startswith("reducers.spot.params: nothing is given for run 1")


def test_columns_of_one_name_or_inside_another_are_a_problem():
    told = problems({"diode": PULSE, "spot": SPOT}, record=("diode",))
    assert all("diode is one" in line for line in told)
    assert len(told) == 5
    (told,) = problems({"step": STRICT})[:1]
    assert told.startswith("step/present: cannot be a column, because step is one")


LOCAL = '''
from typing import Annotated, NamedTuple
from ffb import Feature, Value, reducer

class Offset(NamedTuple):
    """An offset."""
    by: float

class Shifted(NamedTuple):
    value: Annotated[float, Feature("@", "shifted")]

@reducer(version=2)
def shift(x: Value, offset: Offset) -> Shifted:
    """Adds an offset."""
    return Shifted(float(x) + offset.by)

def offsets(run):
    return Offset(10.0 * run)
'''


def test_a_local_file_gives_reducers_and_parameters_and_is_kept(tmp_path):
    (tmp_path / "tonight.py").write_text(LOCAL)
    (tmp_path / "exp.toml").write_text(
        """
        [source]
        kind = "synthetic"
        [inputs]
        diode = { detector = "diode", field = "raw" }
        [reducers.moved]
        use = "./tonight.py:shift"
        inputs = "diode"
        params = "./tonight.py:offsets"
        """
    )
    made = config.load(tmp_path / "exp.toml")
    p = Plan.make(made, ListedRun(INPUTS))
    assert feed(p, [shot(1)])["moved/value"].tolist() == [11.5]
    told = p.provenance()
    origin = told.reducers["moved"]
    assert origin["source"] == LOCAL
    assert (origin["version"], origin["params"], len(origin["hash"])) == (2, {"by": 10.0}, 64)
    assert told.config == made.text
    (tmp_path / "tonight.py").write_text(LOCAL.replace("+ offset.by", "- offset.by"))
    again = Plan.make(config.load(tmp_path / "exp.toml"), ListedRun(INPUTS))
    assert feed(again, [shot(1)])["moved/value"].tolist() == [-8.5]


def test_provenance_is_plain_data():
    import json

    p = plan({"spot": SPOT, "pulse": PULSE})
    told = p.provenance()
    plain = json.loads(json.dumps([dict(told.reducers), dict(told.constants), told.notes]))
    assert plain[0]["spot"]["params"]["rows"] == [2, 7]
    assert plain[0]["spot"]["params"]["saturation"] == "inf"
    assert plain[0]["spot"]["inputs"] == {"image": "jf"}
    assert "source" not in plain[0]["spot"]
    assert {"python", "numpy", "numba", "ffb"} <= set(told.versions)


READS = '''
from pathlib import Path
from typing import Annotated, NamedTuple
from ffb import Feature, Value, reducer

class Params(NamedTuple):
    """A file with an offset, and others that may be there."""
    file: Path
    other: Path | None = None
    more: tuple[Path, ...] = ()

class Offset(NamedTuple):
    by: float

class Shifted(NamedTuple):
    value: Annotated[float, Feature("@", "shifted")]

@reducer(version=1)
def shift(x: Value, offset: Offset) -> Shifted:
    """Adds an offset."""
    return Shifted(float(x) + offset.by)

@shift.prepare
def offset(params: Params, inputs) -> Offset:
    return Offset(float(params.file.read_text()))
'''


def test_paths_are_seen_from_the_configuration_and_told(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "by.txt").write_text("0.25")
    (tmp_path / "tonight.py").write_text(READS)
    (tmp_path / "exp.toml").write_text(
        """
        [source]
        kind = "synthetic"
        [inputs]
        diode = { detector = "diode", field = "raw" }
        [reducers.moved]
        use = "./tonight.py:shift"
        inputs = "diode"
        params = { file = "by.txt", more = ["a/b", "/c"] }
        """
    )
    p = Plan.make(config.load(tmp_path / "exp.toml"), ListedRun(INPUTS))
    assert feed(p, [shot(1)])["moved/value"].tolist() == [1.75]
    told = p.provenance().reducers["moved"]["params"]
    more = [str(tmp_path / "a/b"), "/c"]
    assert told == {"file": str(tmp_path / "by.txt"), "other": None, "more": more}


def test_a_path_is_spelt_as_a_text(tmp_path):
    (tmp_path / "tonight.py").write_text(READS)
    (tmp_path / "exp.toml").write_text(
        """
        [source]
        kind = "synthetic"
        [inputs]
        diode = { detector = "diode", field = "raw" }
        [reducers.moved]
        use = "./tonight.py:shift"
        inputs = "diode"
        params = { file = 3 }
        """
    )
    with pytest.raises(config.ConfigError) as e:
        config.load(tmp_path / "exp.toml")
    assert e.value.problems == ("reducers.moved.params.file: expected a path, got 3",)


@reducer(version=1)
def smooth(wf: Waveform) -> Cut:
    """Every fourth sample."""
    return Cut(wf[::4].astype(np.float64))


@smooth.axes
def _times(params, constants):
    return {"sample": Axis(np.arange(16) * 2.0, "ns")}


@reducer(version=1)
def crooked(wf: Waveform) -> Cut:
    """Its axis is too short."""
    return Cut(wf.astype(np.float64))


@crooked.axes
def _too_few(params, constants):
    return {"sample": Axis(np.arange(3), "ns")}


@reducer(version=1)
def strange(wf: Waveform) -> Cut:
    """Its axis is of no feature."""
    return Cut(wf.astype(np.float64))


@strange.axes
def _of_nothing(params, constants):
    return {"time": Axis(np.arange(64), "ns")}


def test_axes_have_coordinates_in_file_and_snapshot(tmp_path):
    rows, cols = np.indices(SHAPE[1:]) * 75.0
    place = np.stack(np.broadcast_arrays(rows, cols + np.arange(2)[:, None, None] * 1e4, 0.0))
    p = plan(
        {
            "h": {"use": "histogram", "inputs": "jf", "params": {"lo": 0, "hi": 8, "bins": 4}},
            "az": {"use": "azimuthal", "inputs": "jf",
                   "params": {"distance": 100, "energy": 9.5, "bins": 5, "unit": "1/nm",
                              "limits": [0, 10]}},
            "wf": {"use": f"{__name__}:smooth", "inputs": "wf"},
        },
        constants=Constants("jf", "jungfrau", SHAPE, xyz=place,
                            pedestals=np.zeros((3, *SHAPE), np.float32)),
    )  # fmt: skip
    expected = {
        "bin": ([1.0, 3.0, 5.0, 7.0], "ADU"),
        "q": ([1.0, 3.0, 5.0, 7.0, 9.0], "1/nm"),
        "sample": (list(range(0, 32, 2)), "ns"),
    }
    message = Decoder()(encode(Header("begin_run", "tstx00001", 1), p.schema, p.provenance()))
    sinks = SmallData(tmp_path), Live()
    for sink in sinks:
        sink.begin_run(RunInfo("tstx00001", 1), p.schema, message.body)
    for s in (shot(1), shot(2)):
        p.take(s, 0)
    sinks[0].append(p.close())
    sinks[0].end_run(Counts(1, 2, 2))
    with ffb.open(sinks[0].path) as run:
        data = run.to_xarray()
    shown = Snapshot(*unpack(sinks[1].snapshot({})))
    for column, dim in (("h/counts", "bin"), ("az/intensity", "q"), ("wf/samples", "sample")):
        values, unit = expected[dim]
        np.testing.assert_allclose(data[column][dim], values)
        assert data[dim].attrs["unit"] == unit
        x, label = shown.axis(p.schema.by_name[column])
        np.testing.assert_allclose(x, values)
        assert label == f"{dim} [{unit}]"


def test_axes_that_fit_no_feature_are_a_problem():
    told = problems({n: {"use": f"{__name__}:{n}", "inputs": "wf"} for n in ("crooked", "strange")})
    assert told == [
        "reducers.crooked: gives (3,) coordinates of 'sample', 64 long",
        "reducers.strange: gives coordinates of 'time'; axes of its features: sample",
    ]


TILES = '''
from typing import Annotated, NamedTuple
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
        ("state.sums[0] = tile._asdict()['bad']", "TypingError"),
    ],
)
def test_a_tile_reducer_that_goes_wrong_is_a_problem(tmp_path, body, says):
    (tmp_path / "tonight.py").write_text(TILES.replace("BODY", body))
    given = {"use": f"{tmp_path}/tonight.py:tiles", "inputs": "jf", "params": {"how": 3}}
    (told,) = problems({"spot": SPOT, "mine": given})
    assert told.startswith(f"reducers.mine: {says}")
