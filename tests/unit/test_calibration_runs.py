"""Calibrations and photons by runs: one configuration for an experiment whose darks change."""

import os

import numpy as np
import pytest

from ffb.config import ConfigError, parse
from ffb.configuration.defaults import Defaults
from ffb.loops.bind import Binder
from ffb.plan import Plan
from ffb.producing.produce import Producer
from ffb.service import check
from ffb.shot import BeginStep, Field, Idle, time_of
from ffb.sources.choose import source_of
from tests.unit.produced import Window

SHAPE = (2, 16, 32)
SPOT = {"use": "roi", "inputs": "area", "params": {"segment": 1}}


def config_of(tmp_path, tables, photons=None, runs=1):
    source = {"kind": "synthetic", "runs": runs, "shots": 3, "rate": 0.0, "shape": list(SHAPE)}
    made = parse(
        {
            "source": source,
            "inputs": {"area": {"detector": "area", "field": "raw"}},
            "reducers": {"spot": SPOT},
            "calibration": {"area": tables},
            "photons": photons or {},
        }
    )
    made._path = tmp_path / "here.toml"
    return made


@pytest.fixture
def files(tmp_path):
    for run in (1, 2):
        pedestals = np.full((3, *SHAPE), 1000.0 * run, np.float32)
        np.save(tmp_path / f"dark{run}.npy", pedestals)
    np.save(tmp_path / "gain.npy", np.full((3, *SHAPE), 2.0, np.float32))
    mask = np.ones(SHAPE, np.uint8)
    mask[1, :8] = 0
    np.save(tmp_path / "mask.npy", mask)
    return tmp_path


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            [{"runs": "1-41"}, {"runs": "41-"}],
            'calibration.area: runs "1-41" and "41-" overlap; a run may have one table only',
        ),
        (
            [{"runs": "44-"}, {"runs": "-41"}],
            'calibration.area: no table for runs "42-43", between "-41" and "44-": give them to one'
            " of the two, or add one",
        ),
        (
            [{"runs": 7, "edges": 1}, {"edges": 2}],
            'calibration.area: table 2 of 2 lacks runs: say which, such as "42-"',
        ),
        ([], "calibration.area: no table in it"),
        (
            [{"runs": "1-"}, {"runs": "x", "edgse": 1}],
            'calibration.area[1].runs: cannot read \'x\' as runs; write "1-41", "42-", "7" or'
            " \"-5\"; calibration.area[1].edgse: unknown key; did you mean 'edges'?",
        ),
        (
            [{"runs": 1, "common_mode": {"over": "rows", "bnk": [1, 2]}}],
            "calibration.area[0].common_mode.bnk: unknown key; did you mean 'bank'?",
        ),
    ],
    ids=["overlap", "gap", "no runs", "none", "nonsense", "inside"],
)
def test_tables_that_leave_a_run_out_or_give_it_two_are_refused(tmp_path, tables, said):
    with pytest.raises(ConfigError) as e:
        config_of(tmp_path, tables)
    assert "; ".join(e.value.problems) == said


def test_a_run_before_the_first_or_after_the_last_is_refused_by_name(tmp_path, files):
    tables = [{"runs": "2-3", "edges": 1}, {"runs": 4, "edges": 2}]
    said = 'calibration.area: nothing is given for run 1; given are runs "2-3", "4"'
    config = config_of(tmp_path, tables)
    with pytest.raises(ConfigError) as e, np.errstate(all="ignore"):
        Plan.make(config, next(source_of(config).runs()))
    assert said in e.value.problems
    photons = {"area": [{"runs": "-7", "photon": 8.0}]}
    (tmp_path / "here.toml").write_text(config_of(tmp_path, tables, photons).text)
    with pytest.raises(ConfigError) as e:
        check.main(str(tmp_path / "here.toml"), (), 9, (), attach=False)
    assert list(e.value.problems) == [
        'calibration.area: nothing is given for run 9; given are runs "2-3", "4"',
        'photons.area: nothing is given for run 9; given are runs "-7"',
    ]


def frames(config):
    """Pixels of segment 1 of every shot, by run, as the ADC had them."""
    out = {}
    for run in source_of(config).runs():
        run.bind({"area": Field("area", "raw", "raw")}, {})
        shots = (item for item in run if not isinstance(item, BeginStep | Idle))
        out[run.info.run] = [s.segments("area")[1].reshape(SHAPE[1:]) & 0x3FFF for s in shots]
    return out


def test_each_run_of_a_service_has_its_own_constants_and_masks(files):
    tables = [
        {"runs": 1, "pedestals": "dark1.npy", "gain": "gain.npy"},
        {"runs": "2-", "pedestals": "dark2.npy", "gain": "gain.npy", "mask": "mask.npy",
         "edges": [0, 1]},
    ]  # fmt: skip
    config, link = config_of(files, tables, runs=2), Window()
    began = [time_of(run.info.began) for run in source_of(config).runs()]
    for name, days in (("dark2.npy", 3), ("gain.npy", 3), ("mask.npy", -3)):
        at = began[1] - days * 86_400_000_000_000
        os.utime(files / name, ns=(at, at))
    Producer(config, source_of(config), link, "p0").loop()
    abouts = {h.run: body for h, body in link.sent if h.kind == "begin_run"}
    one, two = (abouts[run].constants["area"] for run in (1, 2))
    assert one["pedestals"].startswith("dark1.npy sha256:")
    assert one["pedestals"].endswith(", runs 1")
    assert two["pedestals"].startswith("dark2.npy sha256:")
    assert two["pedestals"].endswith(", runs 2-")
    assert two["masking"] == '{"edges": [0, 1]}'
    assert "masking" not in one
    changed = [n.partition(" since")[0] for n in abouts[2].notes if "since run 1" in n]
    assert changed == [f"area: {n} changed" for n in ("gain", "mask", "masking", "pedestals")]
    assert (
        "area: constants were saved: gain, pedestals 3 days before the run began;"
        " mask 3 days after the run began"
    ) in abouts[2].notes
    good = {run: np.ones(SHAPE[1:], bool) for run in (1, 2)}
    for mask in good.values():
        mask[1, 2] = False  # of bad status, whatever files say
    good[2][:8], good[2][:, [0, -1]] = False, False
    words, columns = frames(config), {h.run: b.columns for h, b in link.batches()}
    for run, mask in good.items():
        expected = [((w - 1000.0 * run) / 2)[mask].sum() for w in words[run]]
        np.testing.assert_allclose(columns[run]["spot/sum"], expected, rtol=1e-6)
        assert (columns[run]["spot/npix"] == mask.sum()).all()


def test_a_photon_may_have_another_energy_in_another_run(files):
    photons = {"area": [{"runs": 1, "by": "pixels", "photon": 8.0},
                        {"runs": "2-", "by": "pixels", "photon": 9.5}]}  # fmt: skip
    config = config_of(files, "none", photons, runs=2)
    ids = []
    for run in source_of(config).runs():
        bound = Binder(Defaults.of(config, run), run).bind()
        ids.append(bound.detectors["area"].ids["photons.area"])
    assert ids == ['{"photon":8.0,"by":"pixels"}', '{"photon":9.5,"by":"pixels"}']
