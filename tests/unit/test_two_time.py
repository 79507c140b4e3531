"""What the XPCS example records is enough for a two-time correlation."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import ffb
from ffb import config
from ffb.plan import Plan
from ffb.shot import BeginStep
from ffb.sink import Counts
from ffb.sources.synthetic import Synthetic, SyntheticSource
from ffb.writers.small_data import SmallData

EXAMPLES, SHOTS = Path(__file__).parents[2] / "deploy/examples", 14
SCRIPT = runpy.run_path(str(EXAMPLES / "two_time.py"), run_name="two_time")
RNG = np.random.default_rng(43)


def by_pairs(frames):
    """Correlation of every pair of frames, one by one."""
    out = np.full((len(frames), len(frames)), np.nan)
    for i, a in enumerate(frames):
        for j, b in enumerate(frames):
            both = ~np.isnan(a) & ~np.isnan(b)
            if both.any():
                out[i, j] = (a[both] * b[both]).mean() / (a[both].mean() * b[both].mean())
    return out


def test_correlation_is_that_of_pairs():
    frames = RNG.gamma(2.0, 3.0, (7, 5, 9))
    frames[RNG.random(frames.shape) < 0.2] = np.nan
    frames[4] = np.nan
    np.testing.assert_allclose(SCRIPT["two_time"](frames), by_pairs(frames), rtol=1e-12)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The run of the example, with the pixels recorded as well."""
    more = (
        'reducers.pixels={use="roi", inputs="area", params={rows=[16,48], cols=[40,88], area=true}}'
    )
    made = config.load(EXAMPLES / "xpcs.toml", [more])
    run = next(SyntheticSource(Synthetic(shots=SHOTS, missing={"area": 0.2})).runs())
    plan, sink = Plan.make(made, run), SmallData(tmp_path_factory.mktemp("run"))
    sink.begin_run(run.info, plan.schema, plan.provenance())
    for item in run:
        if isinstance(item, BeginStep):
            plan.step(item)
        else:
            plan.take(item, 1_800_000_000_000_000_000)
    sink.append(plan.close())
    sink.end_run(Counts(1, SHOTS, SHOTS, ended="end of run"))
    return sink.path


def test_blocks_of_a_run_correlate_as_its_pixels_do(path):
    with ffb.open(path) as run:
        lit = (run["lightStatus/xray"][:] != 0) & run["pixels/present"][:]
        pixels = run["pixels/area"][:][lit].astype(float)
        stamps, blocks = SCRIPT["frames_of"](run, "speckle")
        np.testing.assert_array_equal(stamps, run["timestamp"][:][lit])
        np.testing.assert_array_equal(SCRIPT["frames_of"](run, "pixels")[1], pixels)
    assert 4 < len(blocks) < SHOTS
    cut = pixels.reshape(-1, 8, 4, 12, 4)
    np.testing.assert_allclose(blocks, np.nanmean(cut, axis=(2, 4)), rtol=1e-6)
    np.testing.assert_allclose(SCRIPT["two_time"](blocks), by_pairs(blocks), rtol=1e-9)
