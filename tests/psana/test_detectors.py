"""Detectors of every size: constants, frames and positions are psana's own.

Whatever segments a run reads out, psana takes the constants by segment number.
"""

from typing import NamedTuple

import numpy as np
import pytest

from ffb.reducers.calibration import calibration_of
from ffb.reducers.gain_ranges import EPIX10KA
from ffb.sources.psana import Meaning
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, Service
from ffb.sources.xtc2_writer import Xtc2Writer
from tests.unit.calibrations import expected

pytestmark = pytest.mark.psana

#: psana's names of constants, and ours.
STORED = {
    "pedestals": "pedestals",
    "pixel_gain": "gain",
    "pixel_offset": "offset",
    "pixel_status": "status",
}
DOCUMENT = {"experiment": "fabricated", "run": 1, "_id": "5f0"}
JUNGFRAU = (512, 1024)
EPIX10KA_SHAPE = (352, 384)


class Camera(NamedTuple):
    """A detector: psana's type, the numbers of the segments read out, segments in all."""

    kind: str
    numbers: tuple[int, ...]
    total: int

    @property
    def name(self):
        """A name of its own: psana keeps one object per name for the whole process."""
        return "_".join([self.kind, *map(str, self.numbers[:4]), "of", str(self.total)])

    @property
    def ranges(self):
        return 3 if self.kind == "jungfrau" else 7

    @property
    def shape(self):
        return JUNGFRAU if self.kind == "jungfrau" else EPIX10KA_SHAPE

    def constants(self):
        """Made-up constants of all segments: gains of both signs, some 0, some pixels bad."""
        rng = np.random.default_rng([self.total, self.ranges])
        planes = (self.ranges, 1, *self.shape)
        slope = (40, -1.35, -0.1) if self.ranges == 3 else (16.4, 5.5, 0.16, 16.4, -5.5, 0.16, 0.2)
        gain = np.reshape(slope, (-1, 1, 1, 1)) * rng.normal(1, 0.01, planes)
        gain[rng.random(planes) < 1e-2] = 0
        scale = 1 + np.arange(self.total, dtype=np.float32).reshape(1, -1, 1, 1) / 64
        made = {
            "pedestals": (rng.normal(3000, 300, planes).astype(np.float32) * scale),
            "pixel_gain": gain.astype(np.float32) * scale,
        }
        if self.kind == "jungfrau":
            made["pixel_offset"] = rng.normal(0, 5, planes).astype(np.float32) * scale
        number = np.arange(1, self.total + 1, dtype=np.uint64).reshape(1, -1, 1, 1)
        return {**made, "pixel_status": (rng.random(planes) < 1e-3) * number}

    def write(self, path, name="cam"):
        """Write a run of one shot of random words; returns the words of each segment."""
        rng = np.random.default_rng(5)
        writer = Xtc2Writer(path, "mfxx49820", 7, max_bytes=(1 << 21) * (len(self.numbers) + 1))
        slots = []
        for n in self.numbers:
            uid = f"sn{n:04d}"
            slots.append(writer.declare(SPECS[self.kind], name, n, uid=uid))
            if self.kind == "epix10ka":
                pixels = rng.choice(np.array([0, 4, 8, 12], np.uint8), (4, 176, 192))
                config = {"asicPixelConfig": pixels, "trbit": rng.integers(0, 2, 4, np.uint8)}
                writer.declare(SPECS["epix10ka_config"], name, n, uid=uid, config=config)
        words = rng.integers(0, 2**16, (len(self.numbers), *self.shape), np.uint16)
        t0 = 1_700_000_000_000_000_000
        writer.put(Service.CONFIGURE, t0)
        writer.put(Service.BEGIN_RUN, t0 + 1)
        writer.put(Service.BEGIN_STEP, t0 + 2)
        writer.put(Service.ENABLE, t0 + 3)
        zero = dict.fromkeys(SPECS[self.kind].fields, 0) | {"aux": np.zeros((4, 384), np.uint16)}
        records = []
        for slot, w in zip(slots, words, strict=True):
            values = {k: v for k, v in zero.items() if k in slot.spec.fields}
            records.append((slot, values | {"raw": w[None] if self.kind == "jungfrau" else w}))
        writer.put(Service.L1_ACCEPT, t0 + 4, records)
        for service in (Service.DISABLE, Service.END_STEP, Service.END_RUN):
            t0 += 1
            writer.put(service, t0 + 4)
        writer.close()
        return words


def configure(path):
    with path.open("rb") as f:
        head = f.read(24)
        return head + f.read(12 + int.from_bytes(head[20:24], "little") - 24)


def ours_of(path, stored, monkeypatch, name="cam"):
    """Constants as a run gives them when the store holds ``stored``."""
    found = {name: (array, DOCUMENT) for name, array in stored.items()}
    monkeypatch.setattr(Meaning, "_stored", lambda *_: found)
    return Meaning([configure(path)], "mfxx49820", 7).constants(name)


def psanas(path, stored, name):
    """psana's detector with these constants as if its store had them, and the shot."""
    source = import_psana("psana").DataSource(
        files=str(path), skip_calib_load="all", log_level="ERROR"
    )
    run = next(source.runs())
    run._calib_const[name] = {ctype: (array, DOCUMENT) for ctype, array in stored.items()}
    run.dsparms.calibconst = run._calib_const
    return run, run.Detector(name).raw, next(run.events())


CAMERAS = [
    Camera("jungfrau", (0,), 1),
    Camera("jungfrau", (0, 1), 2),
    Camera("jungfrau", tuple(range(8)), 8),
    Camera("jungfrau", (2, 5), 8),
    Camera("jungfrau", (0, 3, 9), 10),  # beyond 8, psana counts on 32
    Camera("epix10ka", (0,), 1),
    Camera("epix10ka", (0, 1, 2, 3), 4),
    Camera("epix10ka", (1, 3), 4),
    Camera("epix10ka", tuple(range(16)), 16),
]


#: Frames that psana 4.3.4 fails to calibrate, although it takes their constants.
UNKNOWN_TO_PSANA = [CAMERAS[3], CAMERAS[4], CAMERAS[5]]


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.name)
def test_frames_are_psanas_whatever_is_read_out(camera, tmp_path, monkeypatch):
    path, stored = tmp_path / "run.xtc2", camera.constants()
    words = camera.write(path, camera.name)
    c = ours_of(path, stored, monkeypatch, camera.name)
    assert c.segments == camera.numbers
    for theirs, name in STORED.items():
        if theirs in stored:
            taken = stored[theirs][:, list(camera.numbers)]
            np.testing.assert_array_equal(getattr(c, name), taken, err_msg=name)
    k = calibration_of(c, psana=True)
    out = np.empty(words.shape, np.float32)
    k.calibrate([w.ravel() for w in words], out)
    _, detector, event = psanas(path, stored, camera.name)
    if camera in UNKNOWN_TO_PSANA:
        with pytest.raises(ValueError, match="broadcast"):
            detector.calib(event)
        reference = expected(c, words, k.mask)
    else:
        reference = detector.calib(event)
    np.testing.assert_array_equal(out, reference)
    used = out != 0
    np.testing.assert_array_equal(out[used].view(np.uint32), reference[used].view(np.uint32))
    np.testing.assert_array_equal(k.mask, detector._mask() != 0)
    assert (~k.mask).any()
    assert len(np.unique(words >> 14)) == 4
    if camera.kind == "epix10ka":
        bits = c.config | (words >> 9 & 32).astype(np.uint8)
        assert [((bits & m) == v).any() for m, v in EPIX10KA] == [True] * 7


@pytest.mark.parametrize(
    ("camera", "file"),
    [
        (Camera("jungfrau", (0,), 1), "jungfrau05M"),
        (Camera("jungfrau", (0, 1), 2), "jungfrau1M"),
        (Camera("jungfrau", (1, 6), 8), "jungfrau4M"),
        (Camera("jungfrau", (0, 30), 32), "jungfrau16M"),
        (Camera("epix10ka", (0, 1, 2, 3), 4), "epix10kaquad"),
        (Camera("epix10ka", (2,), 4), "epix10kaquad"),
        (Camera("epix100", (0,), 1), "epix100a"),
    ],
    ids=lambda x: x.name if isinstance(x, Camera) else x,
)
def test_positions_are_those_of_psanas_geometry(camera, file, tmp_path, monkeypatch):
    path = tmp_path / "run.xtc2"
    if camera.kind == "epix100":
        writer = Xtc2Writer(path, "mfxx49820", 7)
        writer.declare(SPECS["epix100"], "cam", uid="sn1")
        writer.put(Service.CONFIGURE, 1_700_000_000_000_000_000)
        writer.close()
    else:
        camera.write(path)
    access = import_psana("psana.pscalib.geometry.GeometryAccess")
    folder = access.__file__.rpartition("/")[0]
    text = f"{folder}/data/geometry-def-{file}.data"
    whole = access.GeometryAccess(text).get_pixel_coords(oname=None, oindex=0)
    shape = np.shape(whole[0])[-2:]
    truth = np.stack([np.reshape(a, (-1, *shape))[list(camera.numbers)] for a in whole])
    monkeypatch.setattr(Meaning, "_stored", lambda *_: {})
    for given in ("", text) if camera.total < 8 else ("",):
        made = Meaning([configure(path)], "mfxx49820", 7).constants("cam", given)
        np.testing.assert_array_equal(made.xyz, truth)
        assert made.shape == truth.shape[1:]
        assert made.corner == (whole[0].min(), whole[1].min())


def test_positions_of_sixteen_segments_need_a_geometry_that_has_them(tmp_path, monkeypatch):
    camera = Camera("epix10ka", tuple(range(16)), 16)
    camera.write(tmp_path / "run.xtc2")
    c = ours_of(tmp_path / "run.xtc2", camera.constants(), monkeypatch)
    assert c.xyz is None  # psana's default is that of a quad
    assert c.pedestals.shape == (7, 16, *EPIX10KA_SHAPE)


def test_constants_of_fewer_segments_are_refused(tmp_path, monkeypatch):
    Camera("jungfrau", (2, 5), 8).write(tmp_path / "run.xtc2")
    stored = Camera("jungfrau", (0, 1), 2).constants()
    with pytest.raises(LookupError, match=r"cam: pedestals .* of 2 segments, but .* 2, 5"):
        ours_of(tmp_path / "run.xtc2", stored, monkeypatch)
