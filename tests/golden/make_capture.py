"""Make run.capture anew: python -m tests.golden.make_capture (only when the format changes)."""

from pathlib import Path

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep
from ffb.sink import Provenance
from ffb.wire import EndRun, Header, encode
from ffb.writers.capture import CaptureWriter

SCHEMA = Schema(
    (*CORE, Column("det/area", "<f8", unit="V ns"), Column("det/wave", "<f4", (8,), ("t",), "V"))
)


def shots(first: int, n: int, step: int) -> Batch:
    """Rows ``first`` and following of a run at 120 Hz."""
    batch, i = Batch(SCHEMA, n), np.arange(first, first + n)
    batch.buffer[:] = 0
    c = batch.columns
    c["timestamp"][:], c["pulse_id"][:], c["step"][:] = (5 << 32) + 8_333_333 * i, 3 * i, step
    c["lightStatus/laser"][:] = i % 2
    c["det/area"][:] = np.where(i % 10 == 3, np.nan, i / 2)
    c["det/wave"][:] = np.arange(first * 8, (first + n) * 8).reshape(n, 8) / 4
    batch.read[:] = 1_800_000_000_000_000_000 + i
    return batch


def main() -> None:
    """Write the capture beside this file."""
    path = Path(__file__).with_name("run.capture")
    path.unlink(missing_ok=True)
    head = Header("", "xppgolden", 3, 5 << 32, "p0", 1_700_000_000_000_000_000)
    lost = {"read": 32, "lost": {"backpressure": 2}}
    said = [
        ("begin_run", SCHEMA, Provenance(config="[source]", notes=("golden",)), 0),
        ("step", None, BeginStep(0, {"delay": 0.5}, "", 5 << 32), 0),
        ("shots", SCHEMA, shots(0, 12, 0), 12),
        ("shots", SCHEMA, shots(12, 3, 0), 15),
        ("step", None, BeginStep(1, {"delay": 1.5}, "", (5 << 32) + 1), 15),
        ("shots", SCHEMA, shots(15, 15, 1), 30),
        ("end_run", None, EndRun(), 0),
    ]
    with CaptureWriter(path) as capture:
        for seq, (kind, schema, body, read) in enumerate(said, 1):
            counts = lost if kind == "end_run" else {"read": read, "lost": {}}
            if kind == "end_run":
                status = Header("status", producer="p0", epoch=head.epoch)
                capture.write(encode(status, None, {"read_hz": 120.0}))
            capture.write(encode(head._replace(kind=kind, seq=seq, counts=counts), schema, body))


if __name__ == "__main__":
    main()
