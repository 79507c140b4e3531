"""Detectors of one gain range: constants and frames are psana's own, bit by bit but for a division.

Each is written to a run and read through psana's class for it and through ours.
"""

import numpy as np
import pytest

from ffb.reducers.calibration import calibration_of
from ffb.sources.psana import Meaning
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, U8, U16, Service, Spec
from ffb.sources.xtc2_writer import Xtc2Writer

pytestmark = pytest.mark.psana

DOCUMENT = {"experiment": "fabricated", "run": 1, "_id": "60000001" + "0" * 15 + "1"}
T0 = 1_700_000_000_000_000_000

#: What the DAQ writes of cameras that are in no run of ours yet.
OTHERS = {
    "axis": Spec("axis", "raw", (1, 0, 0), {"value": (U16, 2)}),
    "archon": Spec("archon", "raw", (1, 0, 0), {"value": (U16, 2)}),
    "opal8": Spec("opal", "raw", (2, 0, 0), {"image": (U8, 2)}),
    "alvium": Spec("alvium", "raw", (1, 0, 0), {"value": (U8, 2)}),
}
SHAPES = {"epix100": (704, 768), "archon": (3, 4800)}


def write(path, kind, name):
    """Write a run of one shot; returns its words."""
    spec = SPECS.get(kind) or OTHERS[kind]
    field, (code, _) = next(iter(spec.fields.items()))
    words = np.random.default_rng(5).integers(
        0, 200 if code == U8 else 65536, SHAPES.get(kind, (48, 65)), code
    )
    writer = Xtc2Writer(path, "mfxx49820", 7)
    slot = writer.declare(spec, name, uid="sn1")
    for i, service in enumerate((Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP)):
        writer.put(service, T0 + i)
    writer.put(Service.ENABLE, T0 + 3)
    aux = {"aux": np.zeros((4, 384), np.uint16)} if "aux" in spec.fields else {}
    writer.put(Service.L1_ACCEPT, T0 + 4, [(slot, {field: words} | aux)])
    for i, service in enumerate((Service.DISABLE, Service.END_STEP, Service.END_RUN)):
        writer.put(service, T0 + 5 + i)
    writer.close()
    return words


def constants(kind, shape, gain):
    """Made-up constants in the shapes of psana's store: epix100 has a segment axis, others not."""
    rng = np.random.default_rng(6)
    planes = (1, *shape) if kind == "epix100" else shape
    made = {"pedestals": rng.normal(90, 5, planes).astype(np.float32)}
    if gain:
        slope = rng.normal(16, 0.5, planes)
        slope[rng.random(planes) < 0.01] = 0
        made["pixel_gain"] = slope.astype(np.float32)
    if kind in ("epix100", "axis"):
        made["pixel_status"] = (rng.random(planes) < 0.01).astype(np.uint64)
    return made


def both(tmp_path, monkeypatch, kind, stored):
    """Our constants of the run, and psana's detector with its shot."""
    path, name = tmp_path / "run.xtc2", f"{kind}_{len(stored)}"
    words = write(path, kind, name)
    found = {ctype: (array, DOCUMENT) for ctype, array in stored.items()}
    monkeypatch.setattr(Meaning, "_stored", lambda *_: found)
    with path.open("rb") as f:
        head = f.read(24)
        configure = head + f.read(12 + int.from_bytes(head[20:24], "little") - 24)
    ours = Meaning([configure], "mfxx49820", 7).constants(name)
    source = import_psana("psana").DataSource(
        files=str(path), skip_calib_load="all", log_level="ERROR"
    )
    run = next(source.runs())
    run._calib_const[name] = found or None
    run.dsparms.calibconst = run._calib_const
    return ours, run.Detector(name).raw, next(run.events()), words


def frame(c, words):
    k = calibration_of(type(c)(**(vars(c) | {"shape": (1, *words.shape)})), psana=True)
    out = np.empty(words.shape, np.float32)
    k.calibrate([words.ravel()], out)
    return k, out


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("kind", ["epix100", "opal", "opal8", "axis"])
def test_frames_are_those_of_psana(kind, gain, tmp_path, monkeypatch):
    stored = constants(kind, SHAPES.get(kind, (48, 65)), gain and kind != "axis")
    c, raw, event, words = both(tmp_path, monkeypatch, kind, stored)
    assert c.dettype == kind.removesuffix("8")
    told = "600000010000000000000001 (fabricated, runs 1-?, added 2021-01-14)"
    assert c.ids == dict.fromkeys(stored, told)
    k, out = frame(c, words)
    theirs = raw.calib(event).reshape(out.shape)
    if kind.startswith("opal") and gain:  # psana divides, we multiply by the inverse
        np.testing.assert_array_max_ulp(out, theirs, 1)
        assert (out != theirs).any()
    else:
        np.testing.assert_array_equal(out, theirs)
        used = out != 0
        np.testing.assert_array_equal(out[used].view(np.uint32), theirs[used].view(np.uint32))
    if "pixel_status" in stored:
        np.testing.assert_array_equal(k.mask, (stored["pixel_status"] == 0).reshape(k.mask.shape))
        assert (~k.mask).any()


def test_an_archon_is_psanas_but_for_its_common_mode(tmp_path, monkeypatch):
    stored = constants("archon", SHAPES["archon"], gain=False)
    c, raw, event, words = both(tmp_path, monkeypatch, "archon", stored)
    raw._cmpars = None
    k, out = frame(c, words)
    np.testing.assert_array_equal(out, raw.calib(event))
    assert k.unit == "eV"


@pytest.mark.parametrize("kind", ["opal", "axis"])
def test_a_camera_without_constants_is_raw_for_psana_too(kind, tmp_path, monkeypatch):
    c, raw, event, words = both(tmp_path, monkeypatch, kind, {})
    _, out = frame(c, words)
    np.testing.assert_array_equal(out, raw.calib(event))
    np.testing.assert_array_equal(out, words)


def test_a_camera_unknown_to_psana_takes_its_constants_from_files(tmp_path):
    write(tmp_path / "run.xtc2", "alvium", "cam")
    with (tmp_path / "run.xtc2").open("rb") as f:
        head = f.read(24)
        configure = head + f.read(12 + int.from_bytes(head[20:24], "little") - 24)
    meaning = Meaning([configure], "mfxx49820", 7)
    with pytest.raises(LookupError, match="no class of area detector"):
        meaning.constants("cam")
    c = meaning.constants("cam", store=False)
    assert c.dettype == "alvium"
    assert c.pedestals is None
    assert c.xyz is None
    assert c.shape == (1, 0, 0)
