"""Time tool, spectrometers and jets against numpy, scipy and psana, which gives the same.

In time of one thread. ``python -m tests.benchmarks.bench_timing``.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from ffb.batch import Batch
from ffb.loops.columns import columns_of
from ffb.loops.fuse import RUN, Member
from ffb.loops.guard import Guard
from ffb.loops.stages import AreaPass, ShotStage
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import Reducer
from ffb.reducers import curved_projection, jet, spectrum, time_tool_edge
from ffb.schema import Schema
from ffb.shot import FrameBlock, Input
from ffb.sources.standins import import_psana
from tests.benchmarks.harness import Table, compare, machine, over
from tests.unit.passes import detector, member

RNG = np.random.default_rng(8)
SHOTS, SIZE, PIXELS = 16, 2048, 1024


def stage(
    r: Reducer[Any, Any], params: Any, frames: Mapping[str, NDArray[Any]]
) -> tuple[Callable[[], None], Batch]:
    """The compiled loop over all shots, as a plan runs it, and the batch that it fills."""
    inputs = {k: Input("value", v.dtype.str, v.shape[1:]) for k, v in frames.items()}
    constants, n = r.constants(params, inputs), len(next(iter(frames.values())))
    memory = [r.remembered(constants)] if r.remembers else []
    made = r.fn(*(v[0] for v in frames.values()), constants, *memory)
    columns = columns_of(r.name, r, params, made, "1")
    block, schema = FrameBlock(inputs, n), Schema(columns)
    for k, v in frames.items():
        block.frames[k][:] = v
    block.present[:] = True
    schema = Schema(Member(r.name, r, columns, constants, tuple(frames)).all_columns)
    batch = Batch(schema, n)
    one = Member(r.name, r, columns, constants, tuple(frames))
    made = ShotStage((one,), schema, block, lambda names: Guard(names, Counter(), []))
    return lambda: made.run(n, batch), batch


def edges(rounds: int, width: int, filed: bool) -> Table:
    """Edges of 16 traces over a reference, by a step of ``width`` samples a side."""
    places = RNG.integers(500, 1500, SHOTS)
    lamp = 500 + 300 * np.sin(np.arange(SIZE) / 60)
    traces = lamp * (1 + 0.3 * (np.arange(SIZE) > places[:, None]))
    weights = np.repeat([-1.0, 1.0], width) / width
    lights = {"xray": np.ones(SHOTS, np.int8), "laser": np.ones(SHOTS, np.int8)}
    with tempfile.TemporaryDirectory() as folder:
        np.save(start := Path(folder) / "start.npy", lamp)
        np.save(given := Path(folder) / "weights.npy", weights)
        params = time_tool_edge.Params(
            (0.0, 1.0), width=width, weights=given if filed else None, rising=True, start=start
        )
        ours, batch = stage(time_tool_edge.time_tool_edge, params, {"trace": traces} | lights)
    import_psana("psana")
    from psana.pyalgos.generic.edgefinder import EdgeFinder

    hexed = "01" * width + "ff" * width
    theirs = EdgeFinder({"fir_coefficients": (json.dumps({"a": hexed}), {}),
                         "delayed_denom": (lamp, {})})  # fmt: skip
    half = max(1, 2 * width // 10)

    def brute(trace: NDArray[Any]) -> float:
        y = np.correlate(trace / lamp, weights, "valid")
        k = int(y.argmax())
        near = slice(k - half, k + half + 1)
        c, b, _ = np.polyfit(np.arange(-half, half + 1), y[near], 2)
        above = y > y[k] / 2
        assert above[k]
        return float(k - b / (2 * c) + width - 0.5)

    ours()
    found = batch.columns["time_tool_edge/position"]
    np.testing.assert_allclose(found, places + 0.5, atol=1e-3)
    np.testing.assert_allclose(found, [brute(t) for t in traces], atol=1e-6)
    np.testing.assert_allclose(
        found, [theirs(t, lamp).edge - width + 0.5 for t in traces], atol=1e-3
    )
    how = "weights of a file" if filed else "a step"
    return compare(
        {
            "numpy": lambda: [brute(t) for t in traces],
            "psana EdgeFinder": lambda: [theirs(t, lamp) for t in traces],
            "time_tool_edge": ours,
        },
        "psana EdgeFinder",
        rounds,
        f"edge, {SHOTS} x {SIZE}, {how} of {2 * width} taps",
        clock=thread_time,
    )


def spectra(rounds: int) -> Table:
    """Moments and line of 16 spectra; the fit of scipy is over the same pixels."""
    x = np.arange(float(PIXELS))

    def gauss(x: Any, h: float, c: float, s: float, b: float) -> Any:
        return h * np.exp(-0.5 * ((x - c) / s) ** 2) + b

    profiles = np.stack([gauss(x, 400, c, 8, 100) for c in RNG.uniform(300, 700, SHOTS)])
    profiles += RNG.normal(0, 3, profiles.shape)
    params = spectrum.Params((850.0, 0.1), baseline=(0, 100), threshold=20.0)
    ours, batch = stage(spectrum.spectrum, params, {"profile": profiles})

    def scipys(y: NDArray[Any]) -> tuple[float, ...]:
        y = y - y[:100].mean()
        k = int(y.argmax())
        near = slice(k - 40, k + 41)
        best, _ = curve_fit(gauss, x[near], y[near], (np.ptp(y), k, 8, 0))
        y = np.where(y >= 20, y, 0)
        total = y.sum()
        mean = (y * x).sum() / total
        rms = ((y * (x - mean) ** 2).sum() / total) ** 0.5
        skew = (y * (x - mean) ** 3).sum() / total / rms**3
        return mean, rms, skew, best[1]

    ours()
    wanted = np.array([scipys(y) for y in profiles])
    np.testing.assert_allclose(batch.columns["spectrum/mean"], 850 + 0.1 * wanted[:, 0], rtol=1e-9)
    np.testing.assert_allclose(batch.columns["spectrum/rms"], 0.1 * wanted[:, 1], rtol=1e-9)
    np.testing.assert_allclose(batch.columns["spectrum/skew"], wanted[:, 2], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(batch.columns["spectrum/peak"], 850 + 0.1 * wanted[:, 3], atol=5e-3)
    return compare(
        {"scipy": lambda: [scipys(y) for y in profiles], "spectrum": ours},
        "scipy", rounds, f"spectrum, {SHOTS} x {PIXELS}", clock=thread_time,
    )  # fmt: skip


def areas(rounds: int) -> list[Table]:
    """A curved projection and a jet of a frame of 512 x 1024, with their numpy."""
    shape = (1, 512, 1024)
    area, rows = detector(shape), np.arange(512)
    frames = [RNG.normal(0, 1, shape).astype(np.float32) for _ in range(8)]
    streak = 100 * np.exp(-0.5 * ((np.arange(1024) - 500 - 0.2 * rows[:, None]) / 4) ** 2)
    for f in frames:
        f += streak.astype(np.float32)
    curve = (0.0, 0.02, 5e-5)
    bend = np.polynomial.polynomial.polyval(rows, curve)

    def rolled(image: NDArray[Any]) -> NDArray[Any]:
        kept = np.where(image[0] > 3, image[0], 0)
        shifts = np.round(bend - bend.min()).astype(int)
        return np.stack([np.roll(r, -s) for r, s in zip(kept, shifts, strict=True)]).sum(axis=0)

    def moments(image: NDArray[Any]) -> Any:
        r, c = np.nonzero(image[0] >= 20)
        w = image[0][r, c] - 20.0
        return np.linalg.eigh(np.cov(np.stack([r, c]), aweights=w, ddof=0))

    def alone(name: str, reducer: Any, params: Any) -> Callable[[], None]:
        one = member(name, reducer, params, area)
        schema = Schema(one.all_columns)
        batch, active = Batch(schema, 1), np.full(1, RUN, np.uint8)
        made = AreaPass((one,), Uncalibrated(area.mask, "<f4"), area, schema, 1)
        flat = [(f[0].ravel(),) for f in frames]
        return over(flat, lambda segments: made(segments, 0, batch.buffer, active))

    p = curved_projection.Params(0, curve, thresholds=(3.0, np.inf))
    return [
        compare(
            {"numpy roll": over(frames, rolled),
             "curved_projection": alone("p", curved_projection.curved_projection, p)},
            "numpy roll", rounds, "curved projection, 512 x 1024, over a threshold",
            clock=thread_time,
        ),
        compare(
            {"numpy": over(frames, moments), "jet": alone("j", jet.jet, jet.Params(20.0))},
            "numpy", rounds, "jet, 512 x 1024", clock=thread_time,
        ),
    ]  # fmt: skip


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(machine(), "\n")
    for table in (
        edges(rounds, 50, filed=False), edges(rounds, 50, filed=True),
        edges(rounds, 150, filed=False), edges(rounds, 150, filed=True),
        spectra(rounds), *areas(rounds),
    ):  # fmt: skip
        print(table, "\n")


if __name__ == "__main__":
    main()
