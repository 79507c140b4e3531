"""Constants of a dark run in mid-shift: the next run has them, and nothing is restarted."""

import logging

import numpy as np
import pytest

from ffb.config import parse
from ffb.producing.produce import Producer
from ffb.sources.files import FilesSource
from ffb.sources.standins import import_psana
from ffb.testing.calib_service import CalibService
from ffb.testing.fabricate import LiveWriter, RunSpec
from tests.unit.produced import Window

pytestmark = pytest.mark.psana

SEGMENT, UID = 0, "jungfrau_jf-sn0000"


def spec_of(run):
    return RunSpec(run=run, steps=1, shots_per_step=3, segments=1, groups=("timing", "area"),
                   area_missing=0)  # fmt: skip


def config_of(tmp_path, **calibration):
    return parse(
        {
            "source": {"kind": "synthetic", "exp": "mfxx49820"},
            "inputs": {"jf": {"detector": "jungfrau", "field": "raw"}},
            "calibration": calibration,
            "reducers": {
                "spot": {"use": "roi", "inputs": "jf", "params": {"rows": [9, 99], "cols": [9, 99]}}
            },
        }
    )


class Shift(Window):
    """A link that sees run 7 end: then new constants come, and run 8 begins."""

    def __init__(self, changes):
        super().__init__()
        self.changes = changes

    def send(self, header, schema, body, place=0):
        super().send(header, schema, body, place)
        if header.kind == "end_run" and header.run == 7:
            self.changes()


def test_a_dark_run_in_mid_shift_is_taken_without_a_restart(tmp_path, monkeypatch, caplog):
    spec = spec_of(7)
    made = spec.constants
    with CalibService() as store:
        monkeypatch.setattr(
            import_psana("psana.pscalib.calib.CalibConstants"), "URL", f"{store.url}/calib_ws/"
        )
        for name, array in made.items():
            ctype = name if name == "pedestals" else f"pixel_{name}"
            store.add(spec.exp, UID, ctype, array, (1, "end"))

        def dark():
            # 1 keV higher, whatever range a pixel is in
            store.add(spec.exp, UID, "pedestals", made["pedestals"] + made["gain"], (8, "end"))
            LiveWriter(tmp_path, spec_of(8)).finish()

        LiveWriter(tmp_path, spec).finish()
        source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True, settle=0.0)
        link = Shift(dark)
        with caplog.at_level(logging.INFO):
            Producer(config_of(tmp_path), source, link, "p0").loop(2)
        source.close()
    columns = {h.run: b.columns for h, b in link.batches()}
    abouts = {h.run: body for h, body in link.sent if h.kind == "begin_run"}
    npix = columns[7]["spot/npix"]
    assert (npix > 7000).all()
    np.testing.assert_allclose(
        columns[8]["spot/sum"], columns[7]["spot/sum"] - npix, rtol=1e-5, atol=1e-3 * npix[0]
    )
    ids = {run: about.constants["jungfrau"] for run, about in abouts.items()}
    assert "(mfxx49820, runs 1-end, added " in ids[7]["pedestals"]
    assert "(mfxx49820, runs 8-end, added " in ids[8]["pedestals"]
    assert ids[7]["pixel_gain"] == ids[8]["pixel_gain"]
    said = (
        f"jungfrau: pedestals changed since run 7: {ids[7]['pedestals']}, now {ids[8]['pedestals']}"
    )
    changes = [n for n in abouts[8].notes if "changed" in n]
    assert changes == [said]
    assert f"run 8: {said}" in caplog.messages
    assert not [n for n in abouts[7].notes if "changed" in n]
    [age] = [n for n in abouts[8].notes if "constants were saved" in n]
    assert age.startswith("jungfrau: constants were saved: ")
    assert "pedestals" in age
