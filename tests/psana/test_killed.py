"""A producer on shared memory is killed when it has taken shots and has not begun their run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import ffb
from ffb.testing.shmem_server import clean
from tests.soak import kills
from tests.soak.served import fabricate, spec_of, told, truth
from tests.soak.world import wait_for, world

pytestmark = pytest.mark.psana


def test_shots_taken_to_learn_a_shape_are_lost_by_name_when_their_producer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "PRODUCERS", 1)
    spec, tag = spec_of(200), f"ffb{os.getpid()}xkilled"
    fabricate(tmp_path, spec)
    file = kills.configure(tmp_path, tag, ring=True)
    path = tmp_path / "hdf5" / "smalldata" / f"{kills.EXP}_Run{kills.FIRST_RUN:04d}.h5"
    (tmp_path / "stop").touch()  # after one run
    with world(tmp_path) as here:
        try:
            here.start("server", "tests.soak.served", tmp_path, tag, 1, 0.0)
            here.ffb("aggregator", "aggregate", file)
            dead = here.start("p0", "tests.psana.mortal", "shape=[128] learnt", "reduce", file)
            assert dead.wait(240) == -signal.SIGKILL, here.said("p0")
            here.ffb("p0", "reduce", file)
            wait_for(lambda: kills.complete(path), "the end of the run", 240)
            here.processes["p0"].terminate()
            here.processes["p0"].wait(240)
        finally:
            clean(tag)
    (served,) = told(tmp_path)
    found = kills.check(tmp_path, 0, served, spec, truth(spec))
    assert (found["wrong"], found["unaccounted"]) == (0, 0)
    with ffb.open(path) as run:
        left = min(run.counts.producers.values(), key=lambda p: int(p["epoch"]))
    assert left["ended"] == "producer died"
    assert left["lost"]["producer died"] >= 8
    assert left["written"] == 0
