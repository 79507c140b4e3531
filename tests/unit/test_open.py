"""``ffb open``: what it says of a file that grows, of one that has ended, and of no such file."""

import re

import numpy as np
import pytest

import ffb.reader
from ffb import cli
from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.writers.small_data import SmallData


@pytest.fixture
def run(capsys):
    """Run a command; returns its exit status and what it said on stdout and stderr."""

    def _run(*words: object) -> tuple[int, str, str]:
        status = cli.main([str(w) for w in words])
        return status, *capsys.readouterr()

    return _run


def test_open_tells_what_a_file_holds(run, tmp_path, monkeypatch):
    schema = Schema((*CORE, Column("spot/sum", "<f8", unit="keV", doc="sum of [valid] pixels")))
    sink = SmallData(tmp_path, "mfxx49820_Run0042.h5")
    sink.begin_run(RunInfo("mfxx49820", 42, 1), schema, Provenance())
    batch = Batch(schema, 3)
    for name, column in batch.columns.items():
        column[:] = np.arange(1, 4) if name == "timestamp" else 0
    sink.append(batch)
    counts = Counts(commit=1, read=5, written=3, lost={"backpressure": 2}, late=1)
    sink.commit(counts)
    path = tmp_path / "mfxx49820_Run0042.h5"
    status, out, err = run("open", path)
    assert (status, err) == (0, "")
    assert re.search(r"^spot/sum +float64 +- +keV +sum of \[valid\] pixels", out, re.MULTILINE)
    books = dict(
        re.split(r"  +", line.strip())
        for line in out.rpartition("the books")[2].strip().splitlines()
    )
    assert books == {
        "rows committed": "3 (commit 1)",
        "shots read": "5",
        "written": "3",
        "lost": "2: 2 backpressure",
        "late": "1",
        "duplicates": "0",
        "not seen": "about 0, by pulse ids",
        "ledger": "0 entries of 0 producers' processes",
        "epochs": "1",
        "steps": "0",
        "files": "0 closed, 1 growing, behind mfxx49820_Run0042.h5",
        "state": "growing, or cut off",
        "ended": "not yet",
    }
    monkeypatch.setattr(ffb.reader.RunFile, "follow", lambda *_, **__: iter([slice(3, 1200)]))
    status, out, _ = run("open", path, "--follow")
    assert status == 0
    assert out.count("rows committed") == 2
    assert "\nrows 3 to 1,200\n" in out
    sink.end_run(counts)
    status, out, _ = run("open", path, "--follow")
    assert out.count("rows committed") == 1
    assert status == 0
    assert re.search(r"^state +complete", out, re.MULTILINE)


def test_open_of_something_else_is_a_line(run, tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text("[source]")
    status, out, err = run("open", file)
    assert (status, out) == (1, "")
    assert err.startswith("ffb: ")
    assert err.count("\n") == 1
