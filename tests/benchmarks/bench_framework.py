"""What the framework itself costs per shot, with ten and twenty small whole-shot reducers.

``python -m tests.benchmarks.bench_framework`` prints microseconds per shot by batch size: taking,
closing, and both without what the reducers' own arithmetic costs, measured in the same rounds by
one compiled loop that calls the kernels and stores nothing. Then what a process takes from start
to its first reduced shot, with an empty cache and from a warm one.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Annotated, NamedTuple

import numba
import numpy as np

from ffb import Feature, Value, Waveform, config, reducer
from ffb.plan import Plan
from ffb.shot import Input
from ffb.testing.listed import ListedRun

SAMPLES = 16
#: Many and short, so that some are not interrupted on a machine that others use.
ROUNDS, SHOTS = 200, 200


class Gate(NamedTuple):
    """A gate and a factor."""

    start: int
    stop: int
    scale: float


class Out(NamedTuple):
    total: Annotated[float, Feature("V")]
    ratio: Annotated[float, Feature("1")]


@reducer(version=1)
def small(wf: Waveform, x: Value, gate: Gate) -> Out:
    """Two numbers of a gate."""
    total = 0.0
    for i in range(gate.start, gate.stop):
        total += np.float64(wf[i])
    return Out(total * gate.scale, total / (np.float64(x) + 1.0))


class Same:
    """A shot that a source has already copied: only its identity is filled in."""

    timestamp = 1

    def fill(self, block, row):
        block.timestamp[row] = self.timestamp

    def segments(self, name):
        return None


def plan(shots, reducers_of):
    inputs, tables, reducers = {}, {}, {}
    for k in range(reducers_of):
        inputs[f"wf{k}"] = Input("value", "<f4", (SAMPLES,), "V")
        inputs[f"x{k}"] = Input("value", "<f8", ())
        reducers[f"r{k}"] = {
            "use": f"{__name__}:small",
            "inputs": {"wf": f"wf{k}", "x": f"x{k}"},
            "params": {"start": 2, "stop": 12, "scale": 0.5},
        }
    for name in inputs:
        tables[name] = {"detector": name, "field": "raw"}
    made = config.parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": tables,
            "reducers": reducers,
            "batch": {"shots": shots},
            "light": {"laser": {"on": [183], "off": [184]}, "xray": {"on": [137]}},
        }
    )
    p = Plan.make(made, ListedRun(inputs))
    p.block.present[:] = True
    p.block.timed[:] = True
    for name, frame in p.block.frames.items():
        frame[:] = np.random.default_rng(len(name)).random(frame.shape)
    return p


@numba.njit(error_model="numpy")
def arithmetic(n, reducers_of, wf, x, gate):
    seen = 0.0
    for j in range(n):
        for _ in range(reducers_of):
            out = kernel(wf[j], x[j], gate)
            seen += out.total + out.ratio
    return seen


kernel = numba.njit(error_model="numpy")(small.fn)


def best_us(rounds, shots):
    return min(rounds) / shots / 1000


def measure(shots, reducers_of):
    p, shot = plan(shots, reducers_of), Same()
    repeat = max(1, SHOTS // shots)
    gate, frames = Gate(2, 12, 0.5), p.block.frames
    arithmetic(1, reducers_of, frames["wf0"], frames["x0"], gate)
    took, closed, own = [], [], []
    for _ in range(ROUNDS):
        take = close = alone = 0
        for _ in range(repeat):
            a = time.perf_counter_ns()
            for _ in range(shots):
                p.take(shot, 0)
            b = time.perf_counter_ns()
            batch = p.close()
            c = time.perf_counter_ns()
            arithmetic(shots, reducers_of, frames["wf0"], frames["x0"], gate)
            d = time.perf_counter_ns()
            take, close, alone = take + b - a, close + c - b, alone + d - c
        took.append(take)
        closed.append(close)
        own.append(alone)
    assert batch.n == shots
    assert batch.columns["r3/present"].all()
    n = shots * repeat
    return best_us(took, n), best_us(closed, n), best_us(own, n)


FIRST = """
import time
from ffb.config import load
from ffb.plan import Plan
from ffb.sources.choose import source_of
config = load("deploy/examples/synthetic.toml", ["source.rate=0"])
run = next(source_of(config).runs())
plan = Plan.make(config, run)
plan.take(next(i for i in run if hasattr(i, "segments")), 0)
assert plan.close().columns["spot/present"].all()
print(time.process_time())
"""


def start():
    """From the start of a process to its first reduced shot: two reducers and expressions."""
    print("\nfirst reduced shot after the start of a process: seconds, and of CPU")
    with tempfile.TemporaryDirectory() as cache:
        for k in range(4):
            began = time.perf_counter()
            env = {**os.environ, "FFB_CACHE": cache}
            done = subprocess.run(
                [sys.executable, "-c", FIRST], env=env, check=True, capture_output=True, text=True
            )
            took = time.perf_counter() - began
            print(f"{'warm' if k else 'empty'} cache {took:8.2f} {float(done.stdout):8.2f}")


def main():
    for reducers_of in (10, 20):
        print(f"{reducers_of} whole-shot reducers of two inputs and two features; us a shot, best")
        print(f"{'batch':>6} {'take':>8} {'close':>8} {'kernels':>8} {'framework':>10}")
        for shots in (1, 10, 100, 1000):
            take, close, own = measure(shots, reducers_of)
            print(f"{shots:6d} {take:8.2f} {close:8.3f} {own:8.3f} {take + close - own:10.2f}")
    start()


if __name__ == "__main__":
    main()
