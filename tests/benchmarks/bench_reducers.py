"""A speed guard for every reducer: its time over that of reading its frame, in the same run.

An innocent edit can cost a factor of seven and change no result. ``CASES`` names a realistic
setting of each reducer and the ratio that it must not pass; a ratio above it makes this fail.
Ceilings are about twice what was measured. The frame of a waveform is small, and its ratio large
where a fit is made.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ffb import Area
from ffb.batch import Batch
from ffb.loops.columns import columns_of
from ffb.loops.fuse import RUN, Member
from ffb.loops.guard import Guard
from ffb.loops.stages import AreaPass, ShotStage
from ffb.loops.uncalibrated import Uncalibrated
from ffb.reduce import Reducer, TileReducer
from ffb.schema import Schema
from ffb.shot import FrameBlock, Input
from tests.benchmarks.harness import compare, machine, over, read

SHAPE, FRAMES, SHOTS = (4, 512, 1024), 6, 64
RNG = np.random.default_rng(41)


class Case(NamedTuple):
    """Parameters that differ from the example's, inputs of a whole-shot reducer, the ceiling."""

    params: Mapping[str, Any]
    ceiling: float
    inputs: Mapping[str, Input] = {}


def trace(size: int, dtype: str = "<i2") -> dict[str, Input]:
    """A waveform of a digitiser."""
    return {"waveform": Input("value", dtype, (size,), "V")}


LIGHT = Input("value", "<i1", ())
WHOLE: dict[str, Any] = {"rows": None, "cols": None, "segment": 0}
BEAM: dict[str, Any] = {"distance": 100.0, "energy": 9.5, "bins": 500}
HITS = Input("value", "<f8", (16,), "ns")
CASES: dict[str, Case] = {
    "autocorrelation": Case({"lag": 8}, 600, {"image": Input("value", "<f4", (128, 128), "keV")}),
    "azimuthal": Case({**BEAM, "thresholds": None, "errors": None, "moments": False}, 13),
    "cake": Case({**BEAM, "phi_bins": 36, "phi_limits": (-180.0, 180.0)}, 24),
    "curved_projection": Case({"curvature": (0.3, 0.05), "rows": None}, 13),
    "delay": Case({}, 3, dict.fromkeys(("stage", "arrival"), Input("value", "<f8", (), "1"))),
    "delay_line": Case({}, 300, dict.fromkeys(("mcp", "x1", "x2", "y1", "y2"), HITS)),
    "delay_line_hex": Case(
        {f"sum_{layer}": (-1.0, 1.0) for layer in "uvw"} | {"reach": 1.0, "tolerance": 0.5},
        620,
        dict.fromkeys(("mcp", "u1", "u2", "v1", "v2", "w1", "w2"), HITS),
    ),
    "droplets": Case(
        {"threshold": 3.0, "threshold_low": 1.5, "min_sum": 4.0, "capacity": 20_000}, 8
    ),
    "histogram": Case({"limits": (-5.0, 20.0), "bins": 250}, 20),
    "jet": Case({"threshold": 3.0, "rows": None, "cols": None}, 6),
    "peaks": Case({"distance": 100.0, "adc": 2.0, "snr": 6.0, "min_npix": 1, "capacity": 5000}, 80),
    "photon_counting": Case({"photon": 9.5, "threshold": 3.0, "capacity": 20_000}, 13),
    "photons": Case(
        {"photon": 9.5, "threshold": 3.0, "threshold_low": 1.5, "min_sum": 4.0, "capacity": 20_000},
        10,
    ),
    "projection": Case({"segment": 1, "rows": None}, 6),
    "rebin": Case({"block": (4, 4), "rows": None}, 9),
    "region": Case({"ring": (256.0, 512.0, 50.0, 250.0), "threshold": 3.0}, 7),
    "ring_fit": Case({"threshold": 3.0, "segment": None, "geometry": True, "ring": None}, 12),
    "roi": Case({**WHOLE, "area": False}, 7),
    "spectrum": Case({"region": None}, 110, {"profile": Input("value", "<f8", (1024,), "ADU")}),
    "sparse": Case({"thresholds": (3.0, np.inf), "capacity": 20_000}, 8),
    "speckle": Case(
        {"photon": 9.5, "rings": tuple(np.linspace(0, 60, 21)), "unit": "mm", "distance": 100.0}, 13
    ),
    "threshold": Case({"thresholds": (3.0, np.inf)}, 4),
    "time_tool": Case(
        {}, 3, dict.fromkeys(("position", "amplitude", "fwhm"), Input("value", "<f8", (), "1"))
    ),
    "time_tool_edge": Case(
        {"width": 50},
        90,
        {"trace": Input("value", "<u2", (2048,), "ADU"), "xray": LIGHT, "laser": LIGHT},
    ),
    "waveform_cfd": Case({"taps": 35, "offset": 25}, 130, trace(4096)),
    "waveform_hits": Case({"baseline": (0, 20)}, 280, trace(4096)),
    "waveform_integral": Case({"gate": (20, 2000)}, 10, trace(4096)),
    "waveform_notch": Case({}, 80, trace(4096)),
    "waveform_svd": Case({}, 22, trace(100)),
    "waveform_template": Case({"pulses": 1, "gate": (10, 90)}, 950, trace(256)),
}


def area() -> Area:
    """A flat detector of four segments, 1 % of its pixels masked."""
    segment, row, col = np.indices(SHAPE, np.float64)
    xyz = np.stack([75 * (row - 512 * (segment - 2)), 75 * (col - 512), 0 * row])
    return Area("guard", SHAPE, RNG.random(SHAPE) > 0.01, xyz, "keV")


def frames() -> list[Any]:
    """Noise of 0.3 keV with photons of 9.5 keV in a thousandth of the pixels."""
    out = []
    for _ in range(FRAMES):
        photons = RNG.random(SHAPE) < 1e-3
        out.append((RNG.normal(0, 0.3, SHAPE) + 9.5 * photons).astype(np.float32))
    return out


def tile_calls(name: str, r: TileReducer, case: Case, where: Area, images: list[Any]) -> Any:
    """A pass of this reducer alone over a frame, calibration left out."""
    params = import_module(f"ffb.reducers.{name}").example()[0]._replace(**case.params)
    constants = r.prepare(params, where)
    state = r.allocate(constants)
    r.functions["start"](constants, state)
    with np.errstate(all="ignore"):
        made = r.functions["finish"](constants, state)
    member = Member(name, r, columns_of(name, r, params, made, "keV"), constants, ("image",))
    schema = Schema(member.all_columns)
    batch = Batch(schema, 1)
    run = AreaPass((member,), Uncalibrated(where.mask, "<f4"), where, schema, 1)
    active = np.full(1, RUN, np.uint8)
    raw = [tuple(s.ravel() for s in image) for image in images]
    return over(raw, lambda segments: run(segments, 0, batch.buffer, active))


def shot_calls(name: str, r: Reducer[Any, Any], case: Case) -> tuple[Any, Any]:
    """A batch through this reducer alone, and reading the frames of the batch."""
    params = import_module(f"ffb.reducers.{name}").example()[0]._replace(**case.params)
    constants = r.constants(params, case.inputs)
    block = FrameBlock(case.inputs, SHOTS)
    for key, given in case.inputs.items():
        shape = (SHOTS, *given.shape)
        values = 100 + 3 * RNG.normal(size=shape)
        if given.shape:
            values += 400 * np.exp(-0.5 * ((np.arange(given.shape[-1]) - 40.3) / 3) ** 2)
        block.frames[key][:] = np.ones(shape) if given is LIGHT else values.astype(given.dtype)
        if key == "xray":
            block.frames[key][0] = 0  # a reference for the others
    block.present[:] = True
    made = r.fn(
        *(block.frames[a][0] for a in r.inputs),
        *([] if r.params is None else [constants]),
        *([r.remembered(constants)] if r.remembers else []),
    )
    member = Member(name, r, columns_of(name, r, params, made, "V"), constants, tuple(r.inputs))
    schema = Schema(member.all_columns)
    batch = Batch(schema, SHOTS)
    stage = ShotStage((member,), schema, block, lambda n: Guard(n, Counter(), []))
    return (lambda: stage.run(SHOTS, batch)), (lambda: read(block.frames.values()))


def main() -> int:
    """Measure all; 1 if any passes its ceiling."""
    print(machine(), "\n")
    print("| reducer | frame | ms | over reading it | ceiling |\n|---|---|---|---|---|")
    where, images, passed = area(), frames(), []
    chosen = {n: c for n, c in CASES.items() if not sys.argv[1:] or n in sys.argv[1:]}
    for name, case in chosen.items():
        r = getattr(import_module(f"ffb.reducers.{name}"), name)
        if isinstance(r, TileReducer):
            calls = {
                "read": over(images, lambda image: read([image])),
                "reducer": tile_calls(name, r, case, where, images),
            }
            said, shots = f"{np.prod(SHAPE) / 2**20:.0f} Mpx", 1
        else:
            calls = dict(zip(("reducer", "read"), shot_calls(name, r, case), strict=True))
            said, shots = f"{SHOTS} shots", SHOTS
        table = compare(calls, "read", rounds=9, clock=time.thread_time)
        ratio = 1 / table["reducer"].ratio
        passed += [name] if ratio > case.ceiling else []
        took = table["reducer"].best / shots * 1e3
        print(f"| {name} | {said} | {took:.4f} | {ratio:.1f} | {case.ceiling:g} |", flush=True)
    if passed:
        print(f"\nslower than they may be: {', '.join(passed)}")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
