"""Every kind of default detector, recorded, against a serial loop over psana's own interfaces."""

import numpy as np
import pytest

from ffb.config import load
from ffb.plan import Plan
from ffb.shot import BeginStep, Idle
from ffb.sources.files import FilesSource
from ffb.sources.psana import Meaning
from ffb.sources.shmem import ShmemSource
from ffb.sources.standins import import_psana
from ffb.testing.fabricate import RunSpec, write_experiment, write_run
from ffb.testing.hutch import LATE

pytestmark = pytest.mark.psana

GROUPS = ("timing", "time_tool", "waveforms", "beam", "epics", "hutch")
SPEC = RunSpec(groups=GROUPS, steps=2, shots_per_step=70, slow=20, late=100, harm=10, rate=30.0)

TOML = """
layer = "mfx"
source = { kind = "files", paths = ["run.xtc2"] }
light.xray = { on = "timing.destination == 4", off = [162] }
light.laser = { on = [90], off = [91] }

[detectors]
gmd = { kind = "gmd" }
xgmd = { kind = "gmd" }
ebeam = { kind = "ebeam" }
rix_fim0 = { kind = "wave8" }
mono_encoder = { kind = "interpolated_encoder" }
stopped_encoder = { kind = "encoder" }
mono_hrencoder = { kind = "hrencoder" }
tt_piranha = { detector = "c_piranha", kind = "timetool" }
tt_opal = { detector = "tmo_opal", kind = "timetool" }
qadc_ch0 = { computed.diode = { expr = "self.value[2] * 2.5 - 0.5", unit = "V", doc = "diode" } }

# its traces come too late for their shape to be learnt
[detectors.tt_tmo]
detector = "tmoopal2"
kind = "timetool_traces"
fields."ttproj.proj_sig" = { shape = [32] }
fields."ttproj.proj_ref" = { shape = [32] }

[epics]
lxt_vitara = { pv = "LAS:FS11:VIT:FS_TGT_TIME", unit = "ns", doc = "time of the laser" }
sample_name = { doc = "what is in the beam" }
"""

#: What psana offers that is no datum of a shot, or repeats others.
VETOED = {"config", "descriptions", "integral_all", "base_all"}

#: Groups of the file: detector, interface, and what stands before psana's names.
ASKED = {
    "timing": [("timing", "raw", "")],
    "MfxDg1BmMon": [("MfxDg1BmMon", "raw", "")],
    "MfxDg2BmMon": [("MfxDg2BmMon", "raw", "")],
    "ebeamh": [("ebeamh", "raw", "")],
    "ebeam": [("ebeam", "raw", "")],
    "pcav": [("pcav", "raw", "")],
    "gasdet": [("gasdet", "raw", "")],
    "gmd": [("gmd", "raw", "")],
    "xgmd": [("xgmd", "raw", "")],
    "qadc_ch0": [("qadc_ch0", "raw", "")],
    "feespec": [("feespec", "raw", "")],
    "tt": [("alvium_tt", "raw", "")],
    "enc": [("enc", "raw", "")],
    "rix_fim0": [("rix_fim0", "fex", "")],
    "mono_encoder": [
        ("mono_encoder", "raw", "raw_"), ("mono_encoder", "interpolated", "interpolated_"),
    ],
    "stopped_encoder": [("stopped_encoder", "raw", "")],
    "mono_hrencoder": [("mono_hrencoder", "raw", "")],
    "tt_piranha": [("c_piranha", "ttfex", "")],
    "tt_tmo": [("tmoopal2", "ttfex", ""), ("tmoopal2", "ttproj", "")],
    "tt_opal": [("tmo_opal", "ttfex", "")],
}  # fmt: skip

#: Arrays whose length changes.
LISTS = {"feespec/peakPos", "feespec/peakHeight", "feespec/FWHM"}


def psana_rows(path):
    """Rows {column: value or None}, one a shot."""
    psana = import_psana("psana")
    damaged = import_psana("psana.detector.damage").Damage
    run = next(psana.DataSource(files=str(path), skip_calib_load="all", log_level="ERROR").runs())
    columns, parts = {}, {}
    for group, asked in ASKED.items():
        for name, alg, before in asked:
            part = getattr(run.Detector(name), alg)
            parts[name] = part, damaged(part)
            for field in (f for f in dir(part) if not f.startswith("_") and f not in VETOED):
                columns[f"{group}/{before}{field}"] = part, getattr(part, field)
    motors = {m: run.Detector(m) for m in ("lxt", "step_value")}
    pv, name_of = run.Detector("lxt_vitara"), run.Detector("sample_name")
    rows = []
    for step in run.steps():
        for event in step.events():
            row = {
                n: None if part._segments(event) is None else read(event)
                for n, (part, read) in columns.items()
            }
            for name, (part, damage) in parts.items():
                harm, gone = bool(damage.count(event)), part._segments(event) is None
                row[f"damage/{name}_state"] = 0 if gone else 1 if harm else 2
                row[f"damage/{name}"] = int(row[f"damage/{name}_state"] == 2)
            row |= {f"scan/{m}": motors[m](step) for m in motors}
            codes = row["timing/eventcodes"]
            on = row["timing/destination"] == 4 and not codes[162]
            row |= {"lightStatus/xray": int(on), "lightStatus/laser": int(codes[90])}
            row |= {"timestamp": event.timestamp, "epicsUser/lxt_vitara": pv(event)}
            row["epicsUser/sample_name"] = name_of(event).encode()
            row["pulse_id"] = row.pop("timing/pulseId")
            six = row["tt/value"]
            names = ("fltpos", "fltpos_ps", "fltposfwhm", "ampl", "amplnxt", "refampl")
            row |= {f"tt/{n}": v for n, v in zip(names, six, strict=True)}
            row["qadc_ch0/diode"] = row["qadc_ch0/value"][2] * 2.5 - 0.5
            row["enc/lasDelay"] = row["enc/encoder_values"][0]
            rows.append(row)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hutch")
    (folder / "exp.toml").write_text(TOML)
    write_run(folder / "run.xtc2", SPEC)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return psana_rows(folder / "run.xtc2")


def recorded(folder, source):
    """The plan of the one run of ``source``, and its columns."""
    config = load(folder / "exp.toml", [f"batch.shots={SPEC.shots}"])
    run = next(source.runs())
    plan = Plan.make(config, run)
    for item in run:
        if isinstance(item, BeginStep):
            plan.step(item)
        elif not isinstance(item, Idle):
            plan.take(item, 0)
    return plan, plan.close().columns


def agree(plan, columns, expected):
    """Every value, and which are missing, are psana's."""
    assert columns["timestamp"].tolist() == [r["timestamp"] for r in expected]
    for name in LISTS:
        rows = [[] if r[name] is None else r[name].tolist() for r in expected]
        assert columns[f"{name}_len"].tolist() == [len(r) for r in rows]
        assert [list(r[np.isfinite(r)]) for r in columns[name]] == rows
    names = expected[0].keys() - LISTS
    assert names <= columns.keys(), names - columns.keys()
    for name in names:
        got, want = columns[name], [r[name] for r in expected]
        here = np.array([w is not None for w in want])
        values = [w for w in want if w is not None]
        np.testing.assert_array_equal(got[here], np.array(values), err_msg=name)
        if got.dtype.kind == "f":
            assert np.isnan(got[~here]).all(), name
        elif f"{name}_valid" in columns:
            assert columns[f"{name}_valid"].tolist() == here.tolist(), name
        else:
            assert here.all(), name
    assert not any("psana decodes" in n for n in plan.notes)


def test_files_have_what_psana_reads_under_its_names(folder, expected):
    plan, columns = recorded(folder, FilesSource([folder / "run.xtc2"]))
    agree(plan, columns, expected)
    by_name = plan.schema.by_name
    assert all(by_name[n].unit and by_name[n].doc for n in columns)
    described = [n for n in columns if "which its kind does not describe" in by_name[n].doc]
    assert described == ["qadc_ch0/value"], "of these detectors every other field is described"
    assert {w.split(": ")[1] for w in plan.warnings} == {
        "epics/lxt is not recorded",
        "epics/txt is not recorded",
        "no detector 'qadc_ch1' in this run; did you mean 'qadc_ch0'?",
    }


def test_what_was_missing_at_first_was_never_zero(folder, expected):
    _, columns = recorded(folder, FilesSource([folder / "run.xtc2"]))
    for name in LATE:
        assert not columns[f"damage/{name}_state"][: SPEC.late].any()
        assert (columns[f"damage/{name}_state"][SPEC.late :] > 0).all()
    assert np.isnan(columns["MfxDg2BmMon/totalIntensityJoules"][: SPEC.late]).all()
    assert not columns["mono_hrencoder/value_valid"][: SPEC.late].any()
    assert {*columns["damage/MfxDg2BmMon_state"].tolist()} == {0, 1, 2}
    assert {*columns["damage/feespec_state"].tolist()} == {0, 2}
    assert {*columns["damage/xgmd_state"].tolist()} == {2}, "a bit of its own is no damage"


def test_the_age_of_a_slow_value_is_the_time_since_it_was_read(folder, expected):
    _, columns = recorded(folder, FilesSource([folder / "run.xtc2"]))
    for i in range(SPEC.shots):
        read = SPEC.time(i - i % SPEC.shots_per_step % SPEC.slow) - 1_000_000
        assert columns["epicsUser/lxt_vitara_age"][i] == (SPEC.time(i) - read) / 1e9


def test_streams_of_which_each_has_some_of_the_detectors(tmp_path, folder, expected):
    write_experiment(tmp_path, SPEC)
    source = FilesSource(folder=tmp_path, exp=SPEC.exp)
    agree(*recorded(folder, source), expected)


def test_shared_memory_has_what_psana_reads(folder, expected, tag, shmem_server):
    shmem_server(folder / "run.xtc2", "--clients", 1, "--rate", 200)
    source = ShmemSource(tag, meanings=Meaning)
    try:
        agree(*recorded(folder, source), expected)
    finally:
        source.close()
