"""The common mode against psana's, and calibrations against the bytes they must read.

On one thread, in time of that thread; frames must agree bit by bit before they are timed.
``python -m tests.benchmarks.bench_calibration``.
"""

import argparse
import warnings
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.calibration_settings import CommonModeConfig
from ffb.reducers.calibration import calibration_of
from ffb.source import Constants
from ffb.sources.standins import import_psana
from tests.benchmarks.harness import Table, compare, machine, over, read

#: Four epix100 make 2 Mpx.
SHAPE = (4, 704, 768)
BANKS = (2, 8)
LARGEST, MINIMUM, FACTOR = 100.0, 10, np.float32(0.06)

#: Bits of psana's ``cmpars[1]``, and what is asked of us.
MODES = {"rows": (1, 6.0), "columns": (2, 6.0), "banks": (4, 3.5)}


def constants() -> Constants:
    """Constants like those of an epix100, without gains."""
    rng = np.random.default_rng(1)
    pedestals = rng.normal(3000, 60, (1, *SHAPE)).astype(np.float32)
    status = (rng.random((1, *SHAPE)) < 1e-3).astype(np.int64)
    return Constants("epix", "epix100", SHAPE, pedestals, None, None, status)


def raw_frames(c: Constants, number: int = 3) -> list[NDArray[np.uint16]]:
    """Noise of 3 ADU, an offset of 5 from row to row, and 130 in every fiftieth pixel."""
    assert c.pedestals is not None
    rng = np.random.default_rng(2)
    out = []
    for _ in range(number):
        adu = c.pedestals[0] + rng.normal(0, 3, SHAPE) + rng.poisson(0.02, SHAPE) * 130
        adu += rng.normal(0, 5, (*SHAPE[:2], 1))
        out.append(np.clip(adu, 0, 65535).astype(np.uint16))
    return out


def psana_calib(c: Constants, mode: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What psana's ``calib_epix100`` does with a frame."""
    apply = import_psana("psana.detector.UtilsCommonMode").common_mode_apply
    assert c.pedestals is not None
    assert c.status is not None
    pedestals, mask = c.pedestals[0], (c.status[0] == 0).astype(np.uint8)

    def run(raw: NDArray[Any]) -> NDArray[Any]:
        frame = raw - pedestals
        if mode:
            apply(frame, mask, cmpars=(0, mode, LARGEST, MINIMUM), nbanks_rows_cols=BANKS)
        return np.asarray(frame * FACTOR * mask)

    return run


def flat(raw: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Segments as a source hands them over."""
    return tuple(s.ravel() for s in raw)


def calibrations(c: Constants, rounds: int) -> list[Table]:
    """Raw to keV without a common mode, and with each."""
    frames, out, tables = raw_frames(c), np.zeros(SHAPE, np.float32), []
    for name, (mode, asked) in {"none": (0, 0.0), **MODES}.items():
        setting = None
        if mode:
            least = MINIMUM + (name != "banks")
            setting = CommonModeConfig(over=(name,), pixels=least, largest=LARGEST)
        ours, theirs = calibration_of(c, psana=True, common_mode=setting), psana_calib(c, mode)
        ours.calibrate(flat(frames[0]), out)
        np.testing.assert_array_equal(out, theirs(frames[0]))
        planes = ours.constants.planes if mode else ours.constants
        competitors = {
            "psana": over(frames, theirs),
            "ours": over(frames, lambda f, k=ours: k.calibrate(flat(f), out)),
            "read raw, pedestals, factors; write frame": over(
                frames, lambda f, p=planes: (read((f, *p[:2])), out.fill(1))
            ),
        }
        title = f"epix100, 2 Mpx, common mode over {name}" + (f", asked {asked:g}" * bool(asked))
        tables.append(compare(competitors, "psana", rounds, title, warm=1, clock=thread_time))
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    print(machine("psana"), "\n")
    for table in calibrations(constants(), rounds):
        print(table)


if __name__ == "__main__":
    main()
