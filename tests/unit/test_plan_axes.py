"""Features carry the coordinates of their axes into files and snapshots."""

import numpy as np

import ffb
from ffb import Axis, Waveform, reducer
from ffb.dashboards.model import Snapshot
from ffb.live.model import Live
from ffb.sink import Counts
from ffb.source import Constants, RunInfo
from ffb.wire import Decoder, Header, encode, unpack
from ffb.writers.small_data import SmallData
from tests.unit.plans import SHAPE, Cut, plan, problems, shot


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
            "h": {"use": "histogram", "inputs": "jf", "params": {"limits": [0, 8], "bins": 4}},
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
