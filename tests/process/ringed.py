"""A producer for tests of kills: `ffb reduce` on a stream that writes down what it offers.

The stream is synthetic and goes by the clock, whether anybody looks or not. Who comes late joins
where it is when it is live, and otherwise begins at the first shot, as with files that grow. It
ends when the file ``end`` appears.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ffb import config
from ffb.health import log_to_stderr
from ffb.service import processes
from ffb.shot import BeginStep, Idle, Item
from ffb.sources import choose
from ffb.sources.plain import Stop
from ffb.sources.synthetic import Synthetic, SyntheticRun, SyntheticSource

#: How often somebody is to be killed; the stream lasts long enough for it.
KILLS = int(os.environ.get("FFB_KILLS", "5"))

SPEC = Synthetic(
    exp="tstx00001",
    shots=100_000 + 20_000 * KILLS,
    steps=200,
    rate=500.0,
    samples=(64,),
    shape=(1, 16, 32),
)

CONFIG = """
damage = true

[source]
kind = "synthetic"
exp = "tstx00001"

[inputs]
wave = { detector = "digitizer", field = "wave" }
energy = { detector = "gasdet", field = "energy", record = true }
jf = { detector = "area", field = "raw" }

[light]
xray = { off = [162] }
laser = { on = [90], off = [91] }

[reducers.pulse]
use = "waveform_integral"
inputs = "wave"
params = { gate = [4, 60], dt = 0.5 }

[sums.jf]
what = ["calib", "raw"]
light = ["laser"]
per = "step"

[sums.chosen]
input = "jf"
what = ["raw"]
where = "energy > 1 and pulse.peak > 0"

[sums.wave]
what = ["calib_nhits"]
light = ["laser"]
per = "step"

[sums.late]
input = "jf"
what = ["raw"]
where = "damage.area == 1 and energy < 1"

[batch]
shots = 32
age_ms = 40
sums_s = 0.1

[aggregate]
horizon_ms = 500
end_timeout_s = 60

[run]
producers = 2
"""


class Stream(SyntheticRun):
    """A run of which ``seen`` gets the timestamp of every shot before it is given out."""

    def __init__(self, spec: Synthetic, folder: Path, began: float, live: bool, seen: int) -> None:
        super().__init__(spec, 1, Stop())
        self._folder, self._began, self._live, self._seen = folder, began, live, seen

    def __iter__(self) -> Iterator[Item]:
        spec, step = self.spec, -1
        late = max(0, int((time.monotonic() - self._began) * spec.rate))
        for i in range(late if self._live else 0, spec.shots):
            if self.step_of[i] != step:
                step = int(self.step_of[i])
                yield self._begin_step(step, i)
            while (left := self._began + i / spec.rate - time.monotonic()) > 0:
                time.sleep(min(left, 0.002))
                yield Idle()
            if (self._folder / "end").exists():
                break
            if i % spec.producers == spec.producer:
                os.write(self._seen, int(self.timestamps[i]).to_bytes(8, "little"))
                yield self.shot(i)
        self.ended = "end of run"

    def _begin_step(self, step: int, i: int) -> BeginStep:
        return replace(super()._begin_step(step, i), docstring="")


class StreamSource(SyntheticSource):
    """The stream, once; ``began`` is a monotonic time."""

    def __init__(self, spec: Synthetic, folder: Path, began: float, live: bool) -> None:
        super().__init__(spec)
        self.live = live  # type: ignore[misc]
        name = f"seen-{spec.producer}-{time.time_ns()}"
        seen = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._run = Stream(spec, folder, began, live, seen)

    def runs(self) -> Iterator[SyntheticRun]:
        yield self._run


def main(file: str, index: int, of: int, began: str, kind: str) -> int:
    """Be producer ``index`` of a stream that is ``live``, or not."""
    log_to_stderr("info", {"producer": f"p{index}", "pid": os.getpid()})
    folder = Path(file).parent
    spec = replace(SPEC, producer=index, producers=of)
    source = StreamSource(spec, folder, float(began), kind == "live")
    choose.source_of = lambda *_: source  # type: ignore[assignment]
    return processes.reduce(config.load(Path(file)), producer=f"p{index}", index=index, of=of)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
