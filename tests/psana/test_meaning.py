"""What ffb.sources.psana says of a run is what psana itself says of it."""

import numpy as np
import pytest

from ffb.shot import Field
from ffb.sources.psana import Meaning
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, Service
from ffb.sources.xtc2_writer import Xtc2Writer
from ffb.testing.calib_service import CalibService
from ffb.testing.fabricate import RunSpec, save_constants, write_experiment, write_run

pytestmark = pytest.mark.psana

#: Interfaces of psana that return a field as it is, by ours.
SAME = {
    "jungfrau.raw.raw": lambda r: r.Detector("jungfrau").raw.raw,
    "epixquad.raw.raw": lambda r: r.Detector("epixquad").raw.raw,
    "timing.raw.pulseId": lambda r: r.Detector("timing").raw.pulseId,
    "tmo_opal.ttfex.fltpos": lambda r: r.Detector("tmo_opal").ttfex.fltpos,
    "tmo_opal.raw.image": lambda r: r.Detector("tmo_opal").raw.image,
    "w8.raw.raw_3": lambda r: r.Detector("w8").raw.raw_3,
    "w8.fex.integral_2": lambda r: r.Detector("w8").fex.integral_2,
    "gasdet.raw.f11ENRC": lambda r: r.Detector("gasdet").raw.f11ENRC,
    "ebeam.raw.ebeamPhotonEnergy": lambda r: r.Detector("ebeam").raw.ebeamPhotonEnergy,
}


@pytest.fixture(scope="module")
def spec():
    return RunSpec(steps=1, shots_per_step=16, segments=2, epix=4, tt_missing=5, area_missing=7)


@pytest.fixture(scope="module")
def run_path(spec, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("meaning") / "run.xtc2", spec)


def dgrams(path):
    data, at = path.read_bytes(), 0
    while at < len(data):
        size = 12 + int.from_bytes(data[at + 20 : at + 24], "little")
        yield data[at + 11] & 15, data[at : at + size]
        at += size


def meaning_of(path, spec):
    return Meaning([next(dgrams(path))[1]], spec.exp, spec.run)


def psana_run(path):
    source = import_psana("psana").DataSource(
        files=str(path), skip_calib_load="all", log_level="ERROR"
    )
    return next(source.runs())


def test_every_field_of_every_shot_is_as_psana_gives_it(run_path, spec):
    meaning = meaning_of(run_path, spec)
    shots = [d for kind, d in dgrams(run_path) if kind == Service.L1_ACCEPT]
    run = psana_run(run_path)
    readers = {name: make(run) for name, make in SAME.items()}
    seen = dict.fromkeys(SAME, 0)
    for dgram, event in zip(shots, run.events(), strict=True):
        ours = meaning.decode(dgram)
        for name, read in readers.items():
            value, field = read(event), Field(*name.split(".", 2))
            if value is None:
                assert field not in ours, name
            else:
                seen[name] += 1
                np.testing.assert_array_equal(ours[field], value, err_msg=name)
    assert seen["tmo_opal.ttfex.fltpos"] == 13
    assert seen["jungfrau.raw.raw"] == 14
    assert seen["tmo_opal.raw.image"] == 1
    assert seen["timing.raw.pulseId"] == 16


def test_a_detector_that_lacks_one_segment_has_no_fields(run_path, spec):
    meaning = meaning_of(run_path, spec)
    shot = next(d for kind, d in dgrams(run_path) if kind == Service.L1_ACCEPT)
    whole = meaning.decode(shot)
    assert whole[Field("jungfrau", "raw", "frame_cnt")].tolist() == [0, 0]
    meaning.segments[("jungfrau", "raw")].append(2)  # as if three had been promised
    assert not any(f.detector == "jungfrau" for f in meaning.decode(shot))


def test_streams_are_decoded_together_and_one_may_be_away(tmp_path, spec):
    folder = write_experiment(tmp_path, spec)
    streams = [list(dgrams(p)) for p in sorted(folder.glob("*.xtc2"))]
    meaning = Meaning([s[0][1] for s in streams], spec.exp, spec.run)
    shot = [next(d for kind, d in s if kind == Service.L1_ACCEPT) for s in streams]
    whole = meaning.decode(*shot)
    np.testing.assert_array_equal(whole[Field("jungfrau", "raw", "raw")], spec.raw(0))
    assert whole[Field("timing", "raw", "pulseId")] == spec.pulse_id(0)
    part = meaning.decode(shot[0], None, *shot[2:])
    assert {f.detector for f in whole} - {f.detector for f in part} == {"jungfrau", "epixquad"}
    with pytest.raises(ValueError, match="zip"):
        meaning.decode(shot[0])


@pytest.mark.parametrize("detector", ["jungfrau", "epixquad"])
def test_default_geometry_is_the_one_psana_takes(run_path, spec, detector):
    ours = meaning_of(run_path, spec).constants(detector, store=False)
    raw = psana_run(run_path).Detector(detector).raw
    np.testing.assert_array_equal(ours.xyz, np.stack(raw._pixel_coords()))
    assert ours.xyz.dtype == np.float64
    assert ours.shape == ours.xyz.shape[1:]
    assert "default geometry" in ours.origin
    assert ours.pedestals is None


def test_geometry_from_a_file(run_path, spec, tmp_path):
    paths = save_constants(tmp_path, spec)
    ours = meaning_of(run_path, spec).constants("jungfrau", str(paths["geometry"]), store=False)
    np.testing.assert_allclose(ours.xyz, spec.xyz, atol=1e-6)
    assert str(paths["geometry"]) in ours.origin
    assert ours.ids["geometry"].startswith(f"{paths['geometry'].name} sha256:")
    assert ours.since["geometry"] == paths["geometry"].stat().st_mtime_ns


@pytest.mark.parametrize("text", [None, "this is no geometry\n"])
def test_a_geometry_file_that_is_none_is_named(run_path, spec, tmp_path, text):
    path = tmp_path / "bad.data"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LookupError, match=r"jungfrau.*bad\.data"):
        meaning_of(run_path, spec).constants("jungfrau", str(path), store=False)


def test_configuration_bits_of_an_epix10ka(run_path, spec):
    meaning = meaning_of(run_path, spec)
    raw = psana_run(run_path).Detector("epixquad").raw
    ours = meaning.constants("epixquad", store=False)
    np.testing.assert_array_equal(ours.config, raw._cbits_config_detector())
    assert ours.config.dtype == np.uint8
    assert len(np.unique(ours.config)) > 3
    assert ours.dettype == "epix10ka"
    assert meaning.constants("jungfrau", store=False).config is None


@pytest.mark.parametrize("detector", ["nothing", "gasdet"])
def test_what_is_no_area_detector_has_no_constants(run_path, spec, detector):
    meaning = meaning_of(run_path, spec)
    with pytest.raises(LookupError, match=rf"{detector}.*jungfrau"):
        meaning.constants(detector)
    bare = meaning.constants(detector, store=False)  # for what files may bring
    given = (bare.pedestals, bare.gain, bare.offset, bare.status, bare.rms, bare.config)
    given += (bare.xyz,)
    assert all(a is None for a in given)


# the calibration store, as a service on the loopback


@pytest.fixture
def store(spec, monkeypatch):
    """A store with the constants of both area detectors, for runs from 5 on."""
    with CalibService() as service:
        for uid, arrays in (
            ("jungfrau_" + "_".join(f"jf-sn{n:04d}" for n in range(2)), spec.constants),
            ("epix10ka_" + "_".join(f"epix-sn{n:04d}" for n in range(4)), spec.epix_constants),
        ):
            for name, array in arrays.items():
                ctype = name if name == "pedestals" else f"pixel_{name}"
                service.add(spec.exp, uid, ctype, array, (5, "end"))
            rms = np.sqrt(np.abs(arrays["pedestals"]))  # no two alike
            service.add(spec.exp, uid, "pixel_rms", rms, (5, "end"))
        monkeypatch.setattr(
            import_psana("psana.pscalib.calib.CalibConstants"), "URL", f"{service.url}/calib_ws/"
        )
        yield service


PSANAS = {"pedestals": "_pedestals", "gain": "_gain", "status": "_status"}


@pytest.mark.parametrize("detector", ["jungfrau", "epixquad"])
def test_constants_from_the_store_are_those_psana_loads(run_path, spec, store, detector):
    source = import_psana("psana").DataSource(files=str(run_path), log_level="ERROR")
    raw = next(source.runs()).Detector(detector).raw
    theirs = {name: getattr(raw, method)().copy() for name, method in PSANAS.items()}
    ours = meaning_of(run_path, spec).constants(detector)
    for name, array in theirs.items():
        np.testing.assert_array_equal(getattr(ours, name), array, err_msg=name)
    truth = spec.constants if detector == "jungfrau" else spec.epix_constants
    np.testing.assert_array_equal(ours.pedestals, truth["pedestals"])
    np.testing.assert_array_equal(ours.status != 0, truth["status"] != 0)
    np.testing.assert_array_equal(ours.rms, np.sqrt(np.abs(truth["pedestals"])))
    assert (ours.offset is not None) == (detector == "jungfrau")
    assert ours.gain.dtype == ours.pedestals.dtype == np.float32
    assert ours.shape == ours.pedestals.shape[1:]
    assert "store" in ours.origin
    assert "mfxx49820, runs 5-end" in ours.ids["pedestals"]


def test_geometry_from_the_store_comes_before_the_default(run_path, spec, store, tmp_path):
    uid = "jungfrau_jf-sn0000_jf-sn0001"
    key = store.add(spec.exp, uid, "geometry", spec.geometry, (1, "end"))
    ours = meaning_of(run_path, spec).constants("jungfrau")
    np.testing.assert_allclose(ours.xyz, spec.xyz, atol=1e-6)
    assert "geometry from the store" in ours.origin
    assert key in ours.ids["geometry"]
    moved = tmp_path / "moved.data"
    moved.write_text(
        spec.geometry.replace("IP:V1 0 JFCAMERA:V1 0 0 0", "IP:V1 0 JFCAMERA:V1 0 500 0")
    )
    ours = meaning_of(run_path, spec).constants("jungfrau", str(moved))
    np.testing.assert_allclose(ours.xyz[0], spec.xyz[0] + 500, atol=1e-6)


def test_constants_that_begin_later_are_not_taken(run_path, spec, store):
    meaning = Meaning([next(dgrams(run_path))[1]], spec.exp, 4)
    ours = meaning.constants("jungfrau")
    assert ours.pedestals is None
    assert ours.ids == {}
    assert ours.origin.startswith("psana's store has pedestals for runs 5-end, not for run 4; ")


def test_a_store_that_does_not_answer_is_named_with_what_to_do(run_path, spec, store):
    store.close()
    with pytest.raises(LookupError) as e:
        meaning_of(run_path, spec).constants("jungfrau")
    for part in ("jungfrau", spec.exp, store.url, "LCLS_CALIB_HTTP", "[calibration]", '"none"'):
        assert part in str(e.value)
    assert "refused" in str(e.value)


def test_a_store_that_answers_nonsense_is_an_error_not_a_crash(run_path, spec, store, monkeypatch):
    monkeypatch.setattr(store, "answer", lambda path: b"<html>not JSON</html>")
    with pytest.raises(LookupError, match="failed"):
        meaning_of(run_path, spec).constants("jungfrau")


def test_without_the_store_nothing_is_asked(run_path, spec, store):
    meaning_of(run_path, spec).constants("jungfrau", store=False)
    assert store.requests == []


def test_constants_of_a_detector_with_one_gain_range(tmp_path, spec, store):
    """An epix100 in the store is (segments, rows, columns), here it gets its gain range."""
    path = tmp_path / "run.xtc2"
    writer = Xtc2Writer(path, spec.exp, spec.run)
    writer.declare(SPECS["epix100"], "epix100_0", uid="sn1")
    writer.put(Service.CONFIGURE, spec.t0)
    writer.close()
    pedestals = np.random.default_rng(1).normal(2500, 10, (1, 704, 768)).astype(np.float32)
    store.add(spec.exp, "epix100_sn1", "pedestals", pedestals)
    ours = meaning_of(path, spec).constants("epix100_0")
    np.testing.assert_array_equal(ours.pedestals, pedestals[None])
    assert ours.dettype == "epix100"
    assert ours.shape == (1, 704, 768)
    assert ours.xyz.shape == (3, 1, 704, 768)


def test_a_configure_that_psana_cannot_read_is_a_value_error(run_path, spec, monkeypatch):
    manager = import_psana("psana.dgrammanager").DgramManager
    monkeypatch.delattr(manager, "_set_configinfo")
    with pytest.raises(ValueError, match=rf"{spec.exp} run {spec.run}.*_set_configinfo"):
        meaning_of(run_path, spec)


def test_a_run_without_detectors_has_no_meaning_but_is_no_error(spec):
    empty = bytes(11) + bytes([Service.CONFIGURE]) + bytes(8) + (12).to_bytes(4, "little")
    meaning = Meaning([empty], spec.exp, spec.run)
    assert meaning.segments == {}
    assert meaning.dettype("jungfrau") == ""
    with pytest.raises(LookupError, match="it knows none"):
        meaning.constants("jungfrau")
