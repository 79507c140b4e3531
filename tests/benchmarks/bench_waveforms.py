"""Reducers of waveforms against plain numpy and scipy, and what it saves to batch small shots.

In time of one thread. ``python -m tests.benchmarks.bench_waveforms``.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import least_squares

from ffb import config
from ffb.batch import Batch
from ffb.loops.columns import columns_of
from ffb.loops.fuse import Member
from ffb.loops.guard import Guard
from ffb.loops.stages import ShotStage
from ffb.plan import Plan
from ffb.reduce import Reducer
from ffb.reducers import (
    svd_basis,
    waveform_cfd,
    waveform_hits,
    waveform_integral,
    waveform_notch,
    waveform_svd,
    waveform_template,
)
from ffb.schema import Schema
from ffb.shot import FrameBlock, Input
from ffb.sources.standins import import_psana
from ffb.testing.listed import ListedRun
from tests.benchmarks.bench_framework import Same
from tests.benchmarks.harness import Table, compare, machine
from tests.unit.test_waveform_cfd import slow as slow_cfd
from tests.unit.test_waveform_hits import slow as slow_hits

SIZE, SHORT, DT = 4096, 256, 0.5


def trace(size: int, pulses: int, seed: int) -> NDArray[np.uint16]:
    """A digitiser's trace: noise and pulses 30 samples wide."""
    rng = np.random.default_rng(seed)
    t = np.arange(size)[:, None]
    where, height = rng.uniform(50, size - 50, pulses), rng.uniform(300, 3000, pulses)
    out = 2000 + rng.normal(0, 4, size) + (height * np.exp(-(((t - where) / 14) ** 2))).sum(1)
    return out.astype(np.uint16)


def stage(
    r: Reducer[Any, Any], params: Any, traces: NDArray[Any]
) -> tuple[Callable[[], None], Batch]:
    """The compiled loop over all ``traces``, as a plan runs it, and the batch that it fills."""
    inputs = {"waveform": Input("value", traces.dtype.str, traces.shape[1:])}
    constants = r.constants(params, inputs)
    columns = columns_of(r.name, r, params, r(traces[0], constants), "1")
    member = Member(r.name, r, columns, constants, ("waveform",))
    block, schema = FrameBlock(inputs, len(traces)), Schema(member.all_columns)
    block.frames["waveform"][:], block.present[:] = traces, True
    batch = Batch(schema, len(traces))
    made = ShotStage((member,), schema, block, lambda n: Guard(n, Counter(), []))
    return lambda: made.run(len(traces), batch), batch


def discriminators(rounds: int) -> Table:
    """Eight traces a call; hits of ours and of the slow reference must be the same."""
    p = waveform_cfd.Params(DT, threshold=1.0)
    traces = np.stack([trace(SIZE, k % 6, k) for k in range(8)])
    ours, batch = stage(waveform_cfd.waveform_cfd, p, traces)
    ours()
    for k, x in enumerate(traces):
        hits = slow_cfd(x.astype(np.float64), p)[0]
        np.testing.assert_array_equal(batch.columns["waveform_cfd/sample"][k][: len(hits)], hits)
        assert batch.columns["waveform_cfd/n"][k] == len(hits)
    cfd = import_psana("psana.constFracDiscrim").cfd
    whole = [x.astype(np.float64) - np.median(x) for x in traces]
    competitors = {
        "numpy": lambda: [slow_cfd(x.astype(np.float64), p) for x in traces],
        # As far as its first hit, without smoothing and median, and what it gives is no time.
        "psana": lambda: [cfd(DT, 0.0, 1.0, 0.0, x, 25, 0.0, x.std(), 0.75) for x in whole],
        "waveform_cfd": ours,
    }
    return compare(competitors, "numpy", rounds, f"CFD, 8 x {SIZE}", clock=thread_time)


def integrals(rounds: int) -> Table:
    """Eight traces, median baseline of 500 samples, gate of 1000."""
    p = waveform_integral.Params((1000, 2000), DT, (0, 500), level="median")
    traces = np.stack([trace(SIZE, 4, k) for k in range(8)])
    ours, batch = stage(waveform_integral.waveform_integral, p, traces)

    def numpy_way() -> Any:
        level = np.median(traces[:, :500], axis=1)
        return (traces[:, 1000:2000] - level[:, None]).sum(axis=1) * DT

    ours()
    np.testing.assert_allclose(batch.columns["waveform_integral/area"], numpy_way(), rtol=1e-9)
    return compare(
        {"numpy": numpy_way, "waveform_integral": ours},
        "numpy",
        rounds,
        f"integral, median baseline, 8 x {SIZE}",
        clock=thread_time,
    )


def others(rounds: int) -> list[Table]:
    """Threshold, notch and template fit against the references of their tests."""
    traces = np.stack([trace(SIZE, 4, k) for k in range(8)])
    h = waveform_hits.Params(DT, 20.0, baseline=(0, 40), bins=200, limits=(0.0, SIZE * DT))
    hits, _ = stage(waveform_hits.waveform_hits, h, traces)
    n = waveform_notch.Params(DT, 64)
    notch, _ = stage(waveform_notch.waveform_notch, n, traces)

    def fourier() -> None:
        spectrum = fft.rfft(traces)
        spectrum[:, 64::64] = 0
        fft.irfft(spectrum, SIZE)

    tables = [
        compare({"numpy": lambda: [slow_hits(x.astype(np.float64), h) for x in traces],
                 "waveform_hits": hits}, "numpy", rounds, f"hits, 8 x {SIZE}", clock=thread_time),
        compare({"scipy.fft": fourier, "waveform_notch": notch}, "scipy.fft", rounds,
                f"notch, 64 converters, 8 x {SIZE}", clock=thread_time),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shape.npy"
        u = np.arange(60)
        np.save(path, shape := (1 - np.exp(-u / 3.0)) * np.exp(-u / 10.0))
        t = np.arange(SHORT)
        rng = np.random.default_rng(3)
        p = waveform_template.Params(DT, path)
        data = [500 * np.interp(t - 80.3 - k, u, shape, 0, 0) + rng.normal(0, 2, SHORT)
                for k in range(8)]  # fmt: skip
        fit, batch = stage(waveform_template.waveform_template, p, np.stack(data))
        fit()
        assert batch.columns["waveform_template/converged"].all()

        def scipy_way(x: NDArray[Any]) -> Any:
            def rest(q: NDArray[Any]) -> Any:
                return q[0] + q[1] * np.interp(t - q[2], u, shape, 0, 0) - x

            return least_squares(rest, (0.0, 400.0, 82.0), x_scale="jac")

        tables.append(
            compare(
                {"scipy": lambda: [scipy_way(x) for x in data], "waveform_template": fit},
                "scipy", rounds, f"fit of one pulse, 8 x {SHORT}", clock=thread_time,
            )
        )  # fmt: skip
        b = waveform_svd.Params(Path(folder) / "basis.npz", DT, 3, (0.0, 400.0), (0, 200))
        svd_basis.save(b.basis, svd_basis.make(traces, (200, 3000), (0, 200), 3))
        model = waveform_svd.waveform_svd.constants(
            b, {"waveform": Input("value", "<u2", (SIZE,))}
        ).model.T

        def lstsq() -> Any:
            level = traces[:, :200].mean(axis=1)[:, None]
            return np.linalg.lstsq(model, (traces[:, 200:3000] - level).T, rcond=None)

        svd, _ = stage(waveform_svd.waveform_svd, b, traces)
        tables.append(
            compare({"numpy lstsq, coefficients only": lstsq, "waveform_svd": svd},
                    "numpy lstsq, coefficients only", rounds,
                    f"2 pulses of 3 shapes, 8 x {SIZE}", clock=thread_time)
        )  # fmt: skip
    return tables


def plan(use: str, params: dict[str, Any], shots: int) -> Plan:
    """A plan with one reducer of a waveform of 256 samples, its block filled."""
    made = config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": {"wave": {"detector": "wave", "field": "raw"}},
            "reducers": {"one": {"use": use, "inputs": "wave", "params": params}},
            "batch": {"shots": shots},
            "light": {"laser": {"on": [183], "off": [184]}, "xray": {"on": [137]}},
        }
    )
    p = Plan.make(made, ListedRun({"wave": Input("value", "<u2", (SHORT,))}))
    p.block.present[:], p.block.timed[:] = True, True
    p.block.frames["wave"][:] = [trace(SHORT, (k + 1) % 3, k) for k in range(shots)]  # 1 each
    return p


SHOTS = {
    "waveform_integral": {"gate": [100, 200], "dt": DT, "baseline": [0, 50]},
    "waveform_cfd": {"dt": DT, "threshold": 1.0},
    "waveform_hits": {"dt": DT, "threshold": 20.0, "baseline": [0, 40]},
}


def batched(rounds: int) -> None:
    """Print us a shot by batch size: taking and closing a batch, and the compiled loop alone."""
    print(f"shots of {SHORT} samples, us a shot, best of {rounds}, by batch size\n")
    print("| | 1 | 10 | 160 | 1 / 160 |")
    print("|---|---|---|---|---|")
    for use, params in SHOTS.items():
        whole, loop = [], []
        for shots in (1, 10, 160):
            p, shot, repeat = plan(use, params, shots), Same(), 1600 // shots

            def batch(p: Plan = p, shots: int = shots, shot: Same = shot) -> None:
                for _ in range(shots):
                    p.take(shot, 0)
                p.close()

            filled = Batch(p.schema, shots)
            whole.append(best_us(batch, rounds, repeat) / shots)
            loop.append(best_us(partial(p.shots.run, shots, filled), rounds, repeat) / shots)
        for name, us in ((use, whole), (f"{use}, its loop alone", loop)):
            print(f"| {name} | {' | '.join(f'{t:.3f}' for t in us)} | {us[0] / us[-1]:.1f} |")
    print()


def best_us(fn: Callable[[], Any], rounds: int, repeat: int) -> float:
    """Best time of a call [us] over rounds of ``repeat`` calls."""
    best = np.inf
    for _ in range(rounds):
        begin = thread_time()
        for _ in range(repeat):
            fn()
        best = min(best, thread_time() - begin)
    return float(best) / repeat * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine("scipy"), "\n")
    for table in (discriminators(rounds), integrals(rounds), *others(rounds)):
        print(table)
    batched(rounds)


if __name__ == "__main__":
    main()
