"""What psana reads from a fabricated run is what its RunSpec says."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ffb.sources import standins
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, Service, Spec
from ffb.sources.xtc2_writer import Xtc2Writer
from ffb.testing import fabricate, playback
from ffb.testing.fabricate import LiveWriter, RunSpec, save_constants, write_run
from ffb.testing.streams import EPICS_NAMES

pytestmark = pytest.mark.psana


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer of the logbook makes psana look for the files itself."""
    base = import_psana("psana.psexp.ds_base").DataSourceBase
    monkeypatch.setattr(base, "_get_file_info_from_db", lambda self, run: {})


def open_run(**source: Any) -> Any:
    """Open the first run of a source with psana, without constants."""
    psana = import_psana()
    data = psana.DataSource(**source, skip_calib_load="all", log_level="ERROR")
    return next(data.runs())


@pytest.fixture(params=["file", "directory"])
def run(
    request: pytest.FixtureRequest,
    run_spec: RunSpec,
    run_file: Path,
    experiment_dir: Path,
    offline: None,
) -> Any:
    if request.param == "file":
        return open_run(files=str(run_file))
    return open_run(exp=run_spec.exp, run=run_spec.run, dir=str(experiment_dir))


def shots(run: Any) -> Iterator[tuple[int, int, Any]]:
    """(number of the shot, number of the step, event) of everything in a run."""
    value = run.Detector("step_value")
    i = 0
    for step in run.steps():
        for event in step.events():
            yield i, int(value(step)), event
            i += 1


def test_timing_steps_and_slow_control(run: Any, run_spec: RunSpec) -> None:
    assert (run.expt, run.runnum) == (run_spec.exp, run_spec.run)
    timing, lxt, text = (run.Detector(n) for n in ("timing", "lxt", "step_docstring"))
    pv, sample = run.Detector("lxt_vitara"), run.Detector("sample_name")
    full = run.Detector(EPICS_NAMES["lxt_vitara"])
    seen = 0
    for i, step, event in shots(run):
        assert event.timestamp == run_spec.timestamp(i)
        assert timing.raw.pulseId(event) == run_spec.pulse_id(i)
        assert run_spec.index(timing.raw.pulseId(event)) == i
        assert np.flatnonzero(timing.raw.eventcodes(event)).tolist() == run_spec.codes(i)
        assert step == run_spec.step(i)
        assert lxt(event) == run_spec.motor(step)
        assert text(event) == run_spec.docstring(step)
        k = run_spec.slow_index(i)
        assert pv(event) == full(event) == run_spec.pv(k)
        assert sample(event) == run_spec.sample(k)
        seen += 1
    assert seen == run_spec.shots


def test_detectors(run: Any, run_spec: RunSpec) -> None:
    names = ("jungfrau", "tmo_opal", "w8", "hsd")
    jungfrau, opal, w8, hsd = (run.Detector(n) for n in names)
    missing, images, codes = {"area": 0, "tt": 0}, 0, set()
    for i, _, event in shots(run):
        raw = jungfrau.raw.raw(event)
        assert (raw is not None) == run_spec.has_area(i)
        if raw is not None:
            np.testing.assert_array_equal(raw, run_spec.raw(i))
            codes |= set(np.unique(raw >> 14).tolist())
        assert opal.ttfex.fltpos(event) == (
            run_spec.fltpos(i) if run_spec.has_time_tool(i) else None
        )
        image = opal.raw.image(event)
        assert (image is not None) == run_spec.has_image(i)
        missing["area"] += raw is None
        missing["tt"] += not run_spec.has_time_tool(i)
        if run_spec.has_time_tool(i):
            assert opal.ttfex.fltpos_ps(event) == run_spec.fltpos_ps(i)
            assert opal.ttfex.ampl(event) == run_spec.tt_ampl(i)
        if image is not None:
            np.testing.assert_array_equal(opal.raw.raw(event), run_spec.tt_image(i))
            images += 1
        np.testing.assert_array_equal(
            w8.raw.raw_all(event), [run_spec.wave(i, c) for c in range(8)]
        )
        integrals = [run_spec.wave_integral(i, c) for c in range(8)]
        np.testing.assert_array_equal(w8.fex.integral_all(event), integrals)
        np.testing.assert_array_equal(hsd.raw.waveforms(event)[0][0], run_spec.wave(i, 0, 256))
        starts, peaks = hsd.raw.peaks(event)[0][0]
        assert len(starts) == 3
        np.testing.assert_array_equal(peaks[1], run_spec.wave(i, 0, 16))
        np.testing.assert_array_equal(peaks[2], run_spec.wave(i, 0, 24))
    assert missing["area"] == run_spec.shots // run_spec.area_missing
    assert missing["tt"] == run_spec.shots // run_spec.tt_missing
    assert images == sum(map(run_spec.has_image, range(run_spec.shots))) > 0
    assert codes == {0, 1, 2, 3}


def test_beam_monitors(run: Any, run_spec: RunSpec) -> None:
    names = ("ebeam", "gasdet", "gmd", "MfxDg1BmMon", "pcav")
    ebeam, gasdet, gmd, monitor, pcav = (run.Detector(n) for n in names)
    dropped = 0
    for i, _, event in shots(run):
        i0 = run_spec.i0(i)
        dropped += i0 == 0
        assert (i0 == 0) == (not run_spec.light(i).xray)
        assert ebeam.raw.ebeamPhotonEnergy(event) == run_spec.photon_energy(i)
        assert gasdet.raw.f11ENRC(event) == i0
        assert gmd.raw.energy(event) == 1000.0 * i0
        assert monitor.raw.totalIntensityJoules(event) == 1e-3 * i0
        np.testing.assert_array_equal(monitor.raw.peakAmplitude(event), i0 * np.arange(16.0))
        assert pcav.raw.fitTime1(event) == 1.5
    assert dropped == run_spec.shots // run_spec.xray_drop


def test_epix_and_corrupted_shots(tmp_path: Path) -> None:
    spec = RunSpec(
        steps=1, shots_per_step=10, segments=2, epix=4, corrupt=5, groups=("timing", "area")
    )
    run = open_run(files=str(write_run(tmp_path / "run.xtc2", spec)))
    epix, jungfrau = run.Detector("epixquad"), run.Detector("jungfrau")
    config = epix.raw._seg_configs()
    for n in range(spec.epix):
        for name, value in spec.epix_config(n).items():
            np.testing.assert_array_equal(getattr(config[n].config, name), value)
    corrupted = []
    for i, event in enumerate(run.events()):
        raw = epix.raw.raw(event)
        if raw is None:
            corrupted.append(i)
            assert jungfrau.raw.raw(event) is None
        else:
            np.testing.assert_array_equal(raw, spec.raw_epix(i))
            np.testing.assert_array_equal(jungfrau.raw.raw(event), spec.raw(i))
    assert corrupted == [4, 9]


@pytest.mark.parametrize("segments", [1, 3])
def test_geometry_is_psanas(segments: int, tmp_path: Path) -> None:
    spec = RunSpec(segments=segments)
    path = tmp_path / "geometry.data"
    path.write_text(spec.geometry)
    access = import_psana("psana.pscalib.geometry.GeometryAccess").GeometryAccess(str(path))
    xyz = [c.reshape(spec.xyz.shape[1:]) for c in access.get_pixel_coords()]
    np.testing.assert_allclose(xyz, spec.xyz, rtol=0, atol=1e-6)


def test_constants_can_be_loaded(tmp_path: Path) -> None:
    spec = RunSpec(epix=1)
    for detector, arrays in (("jungfrau", spec.constants), ("epixquad", spec.epix_constants)):
        paths = save_constants(tmp_path / detector, spec, detector)
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.load(paths[name]), array)


def test_rings_follow_the_delay() -> None:
    """Calibrated by hand, the rings brighten with the laser on by ``response``, else not."""
    spec = RunSpec(steps=5, shots_per_step=40, xray_drop=0)
    c = {k: v.astype(np.float64) for k, v in spec.constants.items()}
    r = np.hypot(*spec.xyz[:2])
    ring = (abs(r - 20_000) < 900) & (c["status"] == 0).all(axis=0)
    quiet = ((abs(r - 16_000) < 900) | (abs(r - 24_500) < 900)) & (c["status"] == 0).all(axis=0)
    values: dict[tuple[int, bool], list[float]] = {}
    for i in range(spec.shots):
        raw = spec.raw(i)
        kev = ((raw & 0x3FFF) - c["pedestals"][0] - c["offset"][0]) / c["gain"][0]
        kev[raw >> 14 != 0] = np.nan
        signal = np.nanmean(kev[ring]) - np.nanmean(kev[quiet])
        values.setdefault((spec.step(i), spec.light(i).laser), []).append(signal / spec.i0(i))
    off = np.mean([np.mean(values[s, False]) for s in range(spec.steps)])
    rise = [np.mean(values[s, True]) / off - 1 for s in range(spec.steps)]
    expected = [spec.response(s) for s in range(spec.steps)]
    assert expected[0] < 0.01 < 0.49 < expected[-1]
    np.testing.assert_allclose(rise, expected, rtol=0, atol=0.06)


def outline(path: Path) -> list[tuple[int, int, int]]:
    """What, when and how long; psana leaves rubbish behind the names in Configure."""
    return [(playback.service(d), playback.stamp(d), len(d)) for d in playback.load(path)]


def services(path: Path) -> list[int]:
    return [playback.service(d) for d in playback.load(path)]


def test_live_writer_grows_what_the_directory_holds(
    run_spec: RunSpec, experiment_dir: Path, tmp_path: Path
) -> None:
    live = LiveWriter(tmp_path, run_spec, inprogress=True)
    assert live.advance(25) == 25
    growing = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert len(growing) == 8
    assert all(p.name.endswith(".inprogress") for p in growing)
    for path in growing:
        assert services(path).count(Service.L1_ACCEPT) == 25
    live.finish()
    for path in sorted(p for p in experiment_dir.rglob("*") if p.is_file()):
        assert outline(tmp_path / path.relative_to(experiment_dir)) == outline(path)
    assert not list(tmp_path.rglob("*.inprogress"))


def test_live_writer_can_leave_a_run_open(run_spec: RunSpec, tmp_path: Path) -> None:
    spec = dataclasses.replace(run_spec, groups=("timing",))
    live = LiveWriter(tmp_path, spec)
    live.play(rate=1e6)
    live.abandon()
    (data,) = tmp_path.glob("*.xtc2")
    assert services(data).count(Service.L1_ACCEPT) == spec.shots
    assert Service.END_RUN not in services(data)


def test_live_writer_stalls_when_asked(
    run_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr("ffb.testing.fabricate.time", clock)
    spec = dataclasses.replace(run_spec, steps=1, shots_per_step=5, groups=("timing",))
    live = LiveWriter(tmp_path, spec)
    live.play(rate=10.0, stall_at=3, stall=4.0)
    live.finish()
    assert waits == [0.1, 0.1, 0.1, 4.1, 0.1]


def test_readout_bits_and_damage(tmp_path: Path) -> None:
    writer = Xtc2Writer(tmp_path / "x.xtc2", "mfxx49820", 1, readout=0x5)
    pcav = writer.declare(SPECS["pcav"], "pcav")
    values = dict.fromkeys(SPECS["pcav"].fields, 0.5)
    t = 10**18
    for k, service in enumerate((Service.CONFIGURE, Service.BEGIN_RUN, Service.ENABLE)):
        writer.put(service, t + k)
    writer.put(Service.L1_ACCEPT, t + 4, [(pcav, values)], damage=1 << 1)
    writer.put(Service.L1_ACCEPT, t + 5, [(pcav, values)], readout=1 << 22 | 0x3)
    writer.put(Service.END_RUN, t + 6)
    writer.close()
    run = open_run(files=str(tmp_path / "x.xtc2"))
    detector, seen = run.Detector("pcav"), []
    for event in run.events():
        (dgram,) = event._dgrams
        seen.append((event.env & 0xFFFF, bool(event.keepraw()), dgram._xtc.damage))
        assert detector.raw.charge1(event) == 0.5
    assert seen == [(0x5, False, 1 << 1), (0x3, True, 0)]


@pytest.mark.parametrize("out", ["run.xtc2", "directory"])
def test_command_line(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--segments", "0", "--steps", "2", "--shots", "3", "--run", "12", "--live"]
    monkeypatch.setattr(sys, "argv", ["fabricate", str(tmp_path / out), *words, "--rate", "1000"])
    fabricate.main()
    path = tmp_path / out
    if out == "directory":
        path /= "mfxx49820-r0012-s000-c000.xtc2"
    assert services(path).count(Service.L1_ACCEPT) == 6
    assert services(path)[-1] == Service.END_RUN


def wrong_name() -> tuple[Spec, str]:
    return SPECS["pcav"], "dg1-pcav"


def wrong_field() -> tuple[Spec, str]:
    return Spec("pcav", "raw", (2, 0, 0), {"fit-time": (np.float64, 0)}), "pcav"


def wrong_rank() -> tuple[Spec, str]:
    return Spec("pcav", "raw", (2, 0, 0), {"fit": (np.float64, 5)}), "pcav"


@pytest.mark.parametrize("case", [wrong_name, wrong_field, wrong_rank])
def test_writer_refuses_what_would_abort(case: Any, tmp_path: Path) -> None:
    writer = Xtc2Writer(tmp_path / "x.xtc2", "mfxx49820", 1)
    with pytest.raises(ValueError, match="psana takes"):
        writer.declare(*case())
    writer.close()


def test_writer_refuses_records_that_do_not_fit(tmp_path: Path) -> None:
    writer = Xtc2Writer(tmp_path / "x.xtc2", "mfxx49820", 1, max_bytes=1 << 16)
    pcav = writer.declare(SPECS["pcav"], "pcav")
    opal = writer.declare(SPECS["opal"], "opal")
    writer.put(Service.CONFIGURE, 10**18)
    with pytest.raises(ValueError, match=r"missing .*charge1"):
        writer.put(Service.L1_ACCEPT, 10**18 + 1, [(pcav, {"fitTime1": 0.0})])
    with pytest.raises(ValueError, match="rank 1 instead of 2"):
        writer.put(Service.L1_ACCEPT, 10**18 + 1, [(opal, {"image": np.zeros(4)})])
    with pytest.raises(ValueError, match="max_bytes"):
        writer.put(Service.L1_ACCEPT, 10**18 + 1, [(opal, {"image": np.zeros((200, 200))})])
    with pytest.raises(ValueError, match="before the Configure"):
        writer.declare(SPECS["gmd"], "gmd")
    writer.close()


def test_stand_ins_only_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krtc", None)  # what a missing module looks like
    for name in ("mpi4py", "mpi4py.MPI"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    real = sys.modules["mpi4py.MPI"]
    standins.install()
    assert sys.modules["mpi4py.MPI"] is real
    with pytest.raises(RuntimeError, match="install lcls-krtc"):
        sys.modules["krtc"].KerberosTicket("user")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI")
    standins.install()
    world = sys.modules["mpi4py.MPI"].COMM_WORLD
    assert (world.Get_rank(), world.Get_size(), world.bcast("x")) == (0, 1, "x")


def test_a_missing_psana_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psana", None)
    with pytest.raises(ImportError, match="activate the facility's psana environment"):
        import_psana()
