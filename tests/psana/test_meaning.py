"""What ffb.sources.psana says of a run is what psana itself says of it."""

import numpy as np
import pytest

from ffb.shot import Field
from ffb.sources.psana import Meaning
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import Service
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
    assert ours.ids["geometry"] == str(paths["geometry"])


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
    with pytest.raises(LookupError, match=rf"{detector}.*jungfrau"):
        meaning_of(run_path, spec).constants(detector, store=False)
