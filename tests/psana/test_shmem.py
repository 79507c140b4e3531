"""psana's shared memory is read without loss, whatever becomes of its server."""

import signal
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.psana import Meaning
from ffb.sources.shmem import ShmemSource
from ffb.sources.shmem_client import Client
from ffb.sources.xtc2_specs import Service
from ffb.testing.fabricate import RunSpec, write_run
from ffb.testing.playback import load, service
from ffb.testing.shmem_server import ShmemServer, real_server
from tests.contract.readers import take

pytestmark = pytest.mark.psana

PATIENCE = 240.0
FIELDS = {
    "edge": Field("tmo_opal", "ttfex", "fltpos"),
    "image": Field("tmo_opal", "raw", "image"),
    "pv": Field("epics", "raw", "LAS:FS11:VIT:FS_TGT_TIME"),
}
SMALL = RunSpec(steps=3, shots_per_step=30, groups=("timing", "time_tool", "epics"))
OTHER = RunSpec(run=8, steps=2, shots_per_step=20, groups=("waveforms", "timing"), t0=SMALL.t0 - 1)
WAVES = {"wave": Field("w8", "raw", "raw_3")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("small") / "small.xtc2", SMALL)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("other") / "other.xtc2", OTHER)


class Background(threading.Thread):
    """Do something in a thread; ``result`` waits for it and raises what it raised."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.value, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except BaseException as e:
            self.error = e

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def source(tag, timeout=None):
    return closing(ShmemSource(tag, timeout, Meaning))


def take_runs(tag, n, fields=FIELDS):
    """Read ``n`` runs to their ends."""
    with source(tag) as src:
        runs = src.runs()
        return [take(next(runs), fields) for _ in range(n)]


@contextmanager
def serving(tag, tape, **options):
    """Send ``tape`` to one client, from a thread."""
    server = ShmemServer(tag, size=1 << 20, **options)

    def play():
        server.wait_clients(server.clients)
        for dgram, *stamp in tape:
            server.send(dgram, *stamp)
        server.drain()

    playing = Background(play)
    try:
        yield playing
        playing.result()
    finally:
        server.close()


def check(taken, spec, rows=None):
    """Compare what was read with the truth: nothing missing, nothing twice, all in order."""
    rows = taken.rows if rows is None else rows
    assert (taken.info.exp, taken.info.run) == (spec.exp, spec.run)
    for row in rows:
        i = spec.index(row.pulse_id)
        assert row.timestamp == spec.timestamp(i)
        assert row.step == spec.step(i)
        assert row.codes == set(spec.codes(i))
        if "edge" in row.values:
            assert row.values["edge"] == (spec.fltpos(i) if spec.has_time_tool(i) else None)
        if "pv" in row.values:
            assert row.values["pv"] == spec.pv(spec.slow_index(i))
        if "image" in row.values:
            assert (row.values["image"] is not None) == spec.has_image(i)
        if "wave" in row.values:
            assert row.values["wave"].tolist() == spec.wave(i, 3).tolist()
    return [spec.index(row.pulse_id) for row in rows]


def test_every_shot_once_and_in_order_with_its_step(small, tag, shmem_server):
    shmem_server(small)
    (taken,) = take_runs(tag, 1)
    assert check(taken, SMALL) == list(range(SMALL.shots))
    assert taken.problems == []
    assert (taken.ended, taken.notes) == ("end of run", [])
    steps = [(s.step, s.values["lxt"], s.docstring) for s in taken.steps]
    assert steps == [(s, SMALL.motor(s), SMALL.docstring(s)) for s in range(SMALL.steps)]


def test_two_clients_share_every_shot(small, tag, shmem_server):
    shmem_server(small, "--clients", 2, "--buffers", 4)
    readers = [Background(lambda: take_runs(tag, 1)) for _ in range(2)]
    parts = [check(r.result()[0], SMALL) for r in readers]
    assert all(part == sorted(part) for part in parts)
    assert sorted(i for part in parts for i in part) == list(range(SMALL.shots))
    for r in readers:
        assert [s.values["lxt"] for s in r.value[0].steps] == [SMALL.motor(s) for s in range(3)]


def test_areas_are_read_in_the_servers_own_buffers(run_spec, run_file, tag, shmem_server):
    """With two buffers, each shot's must be given back before the next but one can come."""
    shmem_server(run_file, "--buffers", 2)
    fields = {"area": Field("jungfrau", "raw", "raw")}
    with source(tag) as src:
        run = next(src.runs())
        block, n = FrameBlock(run.bind(fields, {})[0], 1), 0
        for item in run:
            if isinstance(item, (Idle, BeginStep)):
                continue
            item.fill(block, 0)
            parts = item.segments("area")
            assert (parts is not None) == run_spec.has_area(n) == bool(block.present[0, 0])
            if parts is not None:
                assert not parts[0].flags.owndata
                assert not parts[0].flags.writeable
                assert parts[0].tobytes() == run_spec.raw(n)[0].tobytes()
            n += 1
    assert n == run_spec.shots
    assert run.notes == []


def test_the_server_may_come_late(small, tag, shmem_server):
    reader = Background(lambda: take_runs(tag, 1))
    waiting = ShmemSource(tag, timeout=0.1)
    with closing(waiting), pytest.raises(TimeoutError, match=f"no shared-memory .* {tag!r} in 0.1"):
        next(waiting.runs())
    shmem_server(small)
    assert check(reader.result()[0], SMALL) == list(range(SMALL.shots))


def test_a_killed_server_ends_the_run_and_the_next_one_is_read(small, other, tag, shmem_server):
    """The second server plays a run of other detectors, which began earlier by its clock."""
    first = shmem_server(small, "--rate", 300)
    with source(tag) as src:
        runs = src.runs()
        run, seen = next(runs), []
        run.bind({}, {})
        for item in run:
            if not isinstance(item, (Idle, BeginStep)):
                seen.append(item.timestamp)
                if len(seen) == 40:
                    first.kill()
                    first.wait()
        assert run.ended == f"lost: the shared-memory server of tag {tag!r} went away"
        assert seen == [SMALL.timestamp(i) for i in range(len(seen))]
        assert 40 <= len(seen) <= 49, "and what was in its queue"
        shmem_server(other)
        run = next(runs)
        _, problems = run.bind(FIELDS, {})
        assert len(problems) == 3
        assert "no detector 'tmo_opal'" in problems[0]
        taken = take(run, WAVES)
        assert check(taken, OTHER) == list(range(OTHER.shots))
        assert taken.ended == "end of run"


def test_what_a_killed_server_left_behind_is_no_trap(small, tag, shmem_server):
    """Its invitation leads to a port where nobody is, and its queues stay."""
    dead = shmem_server(small)
    dead.kill()
    dead.wait()
    with source(tag, 0.3) as src, pytest.raises(TimeoutError, match=r"not at its port|no client"):
        next(src.runs())
    dead = shmem_server(small)
    dead.kill()
    dead.wait()
    reader = Background(lambda: take_runs(tag, 1))
    shmem_server(small)
    assert check(reader.result()[0], SMALL) == list(range(SMALL.shots))


def test_runs_follow_each_other_with_other_detectors(small, other, tag, shmem_server):
    shmem_server(small, other, small)
    with source(tag) as src:
        runs = src.runs()
        for spec, fields in ((SMALL, FIELDS), (OTHER, WAVES), (SMALL, FIELDS)):
            taken = take(next(runs), fields)
            assert check(taken, spec) == list(range(spec.shots))
            assert taken.ended == "end of run"
            assert not [n for n in taken.notes if "psana" in n]


def test_a_replay_with_the_same_timestamps_is_read_again(small, tag):
    tape = [(d,) for d in load(small)] * 3
    with serving(tag, tape):
        for taken in take_runs(tag, 3):
            assert check(taken, SMALL) == list(range(SMALL.shots))
            assert len(taken.steps) == SMALL.steps
            assert taken.ended == "end of run"


def test_a_run_without_its_end_is_ended_by_the_next(small, other, tag):
    tape = [(d,) for d in load(small) if service(d) != Service.END_RUN]
    with serving(tag, tape + [(d,) for d in load(other)]), source(tag) as src:
        runs = src.runs()
        taken = take(next(runs), FIELDS)
        assert check(taken, SMALL) == list(range(SMALL.shots))
        assert taken.ended == "no EndRun came, the next run began"
        assert check(take(next(runs), WAVES), OTHER) == list(range(OTHER.shots))


@pytest.mark.parametrize("closed", [False, True])
def test_a_run_that_is_left_early_does_not_stop_the_next(small, other, tag, shmem_server, closed):
    shmem_server(small, other)
    with source(tag) as src:
        runs = src.runs()
        run = next(runs)
        run.bind({}, {})
        items = (i for i in run if not isinstance(i, (Idle, BeginStep)))
        assert next(items).timestamp == SMALL.timestamp(0)
        if closed:
            items.close()
        assert check(take(next(runs), WAVES), OTHER) == list(range(OTHER.shots))


def test_a_late_client_gets_the_step_it_comes_into(small, tag):
    tape = [(d,) for d in load(small)]
    after = next(i for i, (d,) in enumerate(tape) if service(d) == Service.END_STEP) + 5
    with closing(ShmemServer(tag, size=1 << 20)) as server:
        for (dgram,) in tape[:after]:
            if service(dgram) != Service.L1_ACCEPT:
                server.send(dgram)

        def rest():
            server.wait_clients(1)
            for (dgram,) in tape[after:]:
                server.send(dgram)
            server.drain()

        playing = Background(rest)
        (taken,) = take_runs(tag, 1, {"edge": FIELDS["edge"]})
        playing.result()
    got = check(taken, SMALL)
    assert got == list(range(SMALL.shots - len(got), SMALL.shots))
    assert 30 <= len(got) < 60
    assert [s.step for s in taken.steps] == [1, 2]


def test_a_full_server_is_waited_for(small, tag, shmem_server):
    shmem_server(small, "--rate", 60, "--loops", 2, "--linger", 30)
    with source(tag) as one, source(tag, 0.3) as two:
        run = next(one.runs())
        with pytest.raises(TimeoutError, match=r"no room for another client|no client at this"):
            next(two.runs())
        assert run.info.run == SMALL.run


def test_the_rest_of_the_process_goes_on_while_there_is_no_server(tag):
    """A heartbeat counts while the source waits for a server; then the source is stopped."""
    with source(tag) as src:
        reader = Background(lambda: list(src.runs()))
        for beats in range(100):
            assert reader.is_alive(), f"it gave up after {beats} beats"
            reader.join(0.002)
        src.stop()
        assert reader.result() == []


def test_a_silent_server_is_told_by_idles_until_a_stop(small, tag):
    tape = [(d,) for d in load(small)[:3]]
    with serving(tag, tape), source(tag) as src:
        runs = src.runs()
        run, items = next(runs), []
        for item in run:
            items.append(item)
            if len(items) == 10:
                src.stop()
        assert [i.step for i in items if isinstance(i, BeginStep)] == [0]
        assert sum(isinstance(i, Idle) for i in items) == 9
        assert run.ended == "stopped"
        assert list(runs) == []


SIGNALLED = """
import signal, sys
from ffb.sources.shmem import ShmemSource
from ffb.sources.shmem_client import Client
source = ShmemSource(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (print("handler", flush=True), source.stop()))
print("ready", flush=True)
for run in source.runs():
    print("run", flush=True)
    n = sum(1 for item in run)
    print(run.ended, flush=True)
source.close()
print("closed", flush=True)
"""


@pytest.mark.parametrize("served", [False, True])
def test_a_signal_handler_runs_and_may_stop_the_source(small, tag, shmem_server, served):
    if served:
        shmem_server(small, "--rate", 10)
    command = [sys.executable, "-c", SIGNALLED, tag]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(1 + served)]
        assert said == ["ready", "run"][: 1 + served]
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert out.split() == ["handler", *["stopped"] * served, "closed"]


def test_psanas_own_server(small, tag):
    """It repeats and drops shots of its own accord: what comes must be true, and in its step."""
    process = real_server(small, tag=tag, size=1 << 20, rate=100.0, buffers=8)
    try:
        (taken,) = take_runs(tag, 1, {"edge": FIELDS["edge"], "pv": FIELDS["pv"]})
    finally:
        process.kill()
        process.wait()
    got = [SMALL.index(row.pulse_id) for row in taken.rows]
    assert got, "how many is its affair, and the machine's"
    for row in taken.rows:
        i = SMALL.index(row.pulse_id)
        assert row.step == SMALL.step(i)
        assert row.values["edge"] == (SMALL.fltpos(i) if SMALL.has_time_tool(i) else None)
    assert not [n for n in taken.notes if "psana" in n]


def test_a_shot_is_noted_before_its_buffer_goes_back_also_where_a_shape_is_learnt(
    other, tag, monkeypatch
):
    noted, unnoted, back = [], [], Client.give_back

    def give_back(client, index):
        if (stamp := client.moment(index).timestamp) not in noted:
            unnoted.append(stamp)
        back(client, index)

    monkeypatch.setattr(Client, "give_back", give_back)
    with serving(tag, [(d,) for d in load(other)]), source(tag) as src:
        src.note = noted.append
        run = next(src.runs())
        run.bind(WAVES, {})
        learnt = len(noted)
        stamps = [item.timestamp for item in run if not isinstance(item, BeginStep | Idle)]
    assert 8 <= learnt < OTHER.shots
    assert noted == stamps == [OTHER.timestamp(i) for i in range(OTHER.shots)]
    assert unnoted == []
