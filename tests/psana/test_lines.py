"""A line camera is a waveform for reducers, or calibrated as an area of one row."""

import numpy as np
import pytest

from ffb.config import ConfigError, parse
from ffb.plan import Plan
from ffb.shot import BeginStep, Field, Idle
from ffb.sources.files import FilesSource
from ffb.sources.psana import Meaning
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, Service, timing_record
from ffb.sources.xtc2_writer import Xtc2Writer
from tests.contract.readers import take

pytestmark = pytest.mark.psana

T0, SIZE, SHOTS = 1_700_000_000_000_000_000, 320, 10
RNG = np.random.default_rng(6)
LINES = RNG.integers(0, 65536, (SHOTS, SIZE)).astype(np.uint16)
PEDESTALS = RNG.normal(900, 90, SIZE).astype(np.float32)
GAIN = RNG.normal(20, 2, SIZE).astype(np.float32)
STATUS = (np.arange(SIZE) % 41 == 7).astype(np.uint64)
MISSING = 4
LINE = {"detector": "atm", "field": "image", "shape": [1, 1, SIZE]}
TRACE = {"detector": "atm", "field": "image"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("line") / "run.xtc2"
    writer = Xtc2Writer(out, "rixx49820", 7)
    timing = writer.declare(SPECS["timing"], "timing")
    slot = writer.declare(SPECS["piranha4"], "atm", uid="sn1")
    for i, service in enumerate((Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP)):
        writer.put(service, T0 + i)
    writer.put(Service.ENABLE, T0 + 3)
    for i, line in enumerate(LINES):
        got = [(slot, {"image": line})] if i != MISSING else []
        writer.put(Service.L1_ACCEPT, T0 + 9 + i, [(timing, timing_record(i, [40])), *got])
    for i, service in enumerate((Service.DISABLE, Service.END_STEP, Service.END_RUN)):
        writer.put(service, T0 + 99 + i)
    writer.close()
    return out


def run_of(path):
    return next(FilesSource([path]).runs())


def test_a_line_is_psanas_as_a_waveform_and_as_an_area(path):
    fields = dict.fromkeys(("line", "trace"), Field("atm", "raw", "image"))
    t = take(run_of(path), fields, shapes={"line": (1, 1, SIZE)})
    assert (t.problems, t.inputs["line"].kind, t.inputs["line"].shape) == ([], "area", (1, 1, SIZE))
    assert (t.inputs["trace"].kind, t.inputs["trace"].shape) == ("value", (SIZE,))
    assert not any("psana decodes" in n for n in t.notes), t.notes
    psana = import_psana("psana").DataSource(
        files=str(path), skip_calib_load="all", log_level="ERROR"
    )
    theirs = next(psana.runs())
    raw = theirs.Detector("atm").raw
    for row, event in zip(t.rows, theirs.events(), strict=True):
        want = raw.raw(event)
        for name in fields:
            got = row.values[name]
            assert (got is None) == (want is None)
            if got is not None:
                np.testing.assert_array_equal(np.ravel(got), want)


def stored(kind, tmp_path, monkeypatch):
    """Constants in psana's store, or in files: the calibration of the configuration."""
    made = {"pedestals": PEDESTALS, "gain": GAIN, "status": STATUS}
    if kind == "files":
        for name, array in made.items():
            np.save(tmp_path / f"{name}.npy", array)
        return {"atm": {name: str(tmp_path / f"{name}.npy") for name in made}}
    document = {"experiment": "rixx49820", "run": 1, "_id": "60000001" + "0" * 15 + "1"}
    names = {"pedestals": PEDESTALS, "pixel_gain": GAIN, "pixel_status": STATUS}
    found = {name: (array, document) for name, array in names.items()}
    monkeypatch.setattr(Meaning, "_stored", lambda *_: found)
    return {}


@pytest.mark.parametrize("kind", ["files", "store"])
def test_a_line_is_calibrated_as_areas_are(path, tmp_path, monkeypatch, kind):
    reducers = {
        "spot": {"use": "roi", "inputs": "line", "params": {"rows": [0, 1], "cols": [40, 200]}},
        "profile": {"use": "projection", "inputs": "line", "params": {"axis": 0}},
        "hits": {
            "use": "waveform_hits", "inputs": "profile/sum",
            "params": {"dt": 1.0, "threshold": 3000.0},
        },
    }  # fmt: skip
    calibration = stored(kind, tmp_path, monkeypatch)
    config = {"source": {"kind": "synthetic"}, "inputs": {"line": LINE}, "batch": {"shots": 16}}
    run = run_of(path)
    plan = Plan.make(parse(config | {"reducers": reducers, "calibration": calibration}), run)
    for item in run:
        if not isinstance(item, BeginStep | Idle):
            plan.take(item, 0)
    batch, good = plan.close().columns, STATUS == 0
    want = (LINES - PEDESTALS.astype(np.float64)) / GAIN
    inside = np.arange(SIZE)[40:200][good[40:200]]
    for i in range(SHOTS):
        assert batch["spot/present"][i] == (i != MISSING)
        if i != MISSING:
            np.testing.assert_allclose(batch["spot/sum"][i], want[i, inside].sum(), rtol=1e-6)
            assert batch["spot/npix"][i] == len(inside)
            profile = batch["profile/sum"][i]
            np.testing.assert_allclose(profile[good], want[i, good], rtol=1e-5, atol=1e-3)
            above = np.where(good, want[i], 0) > 3000
            assert batch["hits/n"][i] == (np.diff(above.astype(int)) == 1).sum()


def test_a_line_that_is_given_as_a_waveform_says_how_to_make_it_an_area(path):
    spot = {"use": "roi", "inputs": "trace", "params": {"rows": [0, 1], "cols": [40, 200]}}
    config = {"source": {"kind": "synthetic"}, "inputs": {"trace": TRACE}}
    with pytest.raises(ConfigError) as e:
        Plan.make(parse(config | {"reducers": {"spot": spot}}), run_of(path))
    said = f"roi takes an area detector; with shape = [1, 1, {SIZE}] it is one, of one row"
    assert said in str(e.value)
    wrong = {"line": Field("atm", "raw", "image")}
    _, [problem] = run_of(path).bind(wrong, {"line": (2, 1, SIZE)})
    assert problem == "input line: atm.raw.image: a line is an area of [1, 1, columns]"
