"""What a producer took arrives, whatever becomes of its run; what was written is merged."""

import io
import os
import signal
import sys

import pytest
from rich.console import Console

from ffb import config
from ffb.service import processes
from ffb.supervise import Child, Supervisor
from ffb.testing.listed import ListedRun
from tests.unit.produced import ENERGY, TOML, Source, Window, shots


class Failing(ListedRun):
    """A run of two shots whose stream then breaks."""

    def __iter__(self):
        yield from shots(2)
        raise ConnectionError("the server is gone")


def test_a_producer_whose_run_fails_still_waits_for_what_it_sent(tmp_path, monkeypatch):
    order = []

    class Link(Window):
        def drain(self, timeout_s):
            order.append("drain")
            return True

        def close(self):
            order.append("close")

    class Closing(Source):
        def close(self):
            order.append("source closed")

    link = Link()
    monkeypatch.setattr("ffb.transport.Link", lambda *a, **k: link)
    monkeypatch.setattr("ffb.sources.choose.source_of", lambda *a: Closing(Failing(ENERGY)))
    file = tmp_path / "exp.toml"
    file.write_text(TOML)
    with pytest.raises(ConnectionError):
        processes.reduce(config.load(file))
    assert sum(b.n for _, b in link.batches()) == 2
    assert order == ["drain", "close", "source closed"]


def test_a_producer_that_waits_for_its_last_commits_ends_soon_when_told_to(tmp_path, monkeypatch):
    waited = []

    class Link(Window):
        unacked, silence = 3, "is the aggregator up?"

        def drain(self, timeout_s):
            waited.append(timeout_s)
            os.kill(os.getpid(), signal.SIGTERM)
            return False

        def close(self):
            pass

    monkeypatch.setattr("ffb.transport.Link", lambda *a, **k: Link())
    source = Source(ListedRun(ENERGY, items=shots(2)))
    source.close = source.stop
    monkeypatch.setattr("ffb.sources.choose.source_of", lambda *a: source)
    monkeypatch.setattr(processes, "GRACE_S", 0.0)
    file = tmp_path / "exp.toml"
    file.write_text(TOML + "[aggregate]\nend_timeout_s = 1e6\n")
    assert processes.reduce(config.load(file)) == 1
    assert sum(waited) < 1


def test_a_producer_that_is_told_to_stop_when_it_is_done_closes_all_the_same(tmp_path, monkeypatch):
    closed, missed = [], []

    class Link(Window):
        def drain(self, timeout_s):
            return True

        def close(self):
            os.kill(os.getpid(), signal.SIGTERM)
            closed.append(True)

    monkeypatch.setattr("ffb.transport.Link", lambda *a, **k: Link())
    source = Source(ListedRun(ENERGY, items=shots(2)))
    source.close = source.stop
    monkeypatch.setattr("ffb.sources.choose.source_of", lambda *a: source)
    file = tmp_path / "exp.toml"
    file.write_text(TOML)
    with processes.stoppable(lambda: missed.append("it would have died")):
        assert processes.reduce(config.load(file)) == 0
    assert (closed, missed) == ([True], [])


MERGING = """
import signal, sys, time
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while not asked or sys.argv[1] == "long":
    time.sleep(0.01)
time.sleep(0.6)
print("merged", flush=True)
"""


@pytest.mark.parametrize("stopped", [[], [True]])
def test_an_aggregator_that_still_merges_is_waited_for_until_we_are_stopped(tmp_path, stopped):
    words = [sys.executable, "-c", MERGING, "long" if stopped else "short"]
    supervisor = Supervisor([Child("aggregator", words, True, tmp_path / "a.log")])
    supervisor.start()
    console = Console(file=io.StringIO())
    try:
        while not (tmp_path / "a.out").read_text():
            assert supervisor.children[0].alive
        processes._finish(supervisor, console, stopped)
        assert supervisor.children[0].alive == bool(stopped)
    finally:
        assert processes._stop(supervisor, console)
    said = (tmp_path / "a.out").read_text()
    assert said == ("ready\n" if stopped else "ready\nmerged\n")
    assert ("merging" in console.file.getvalue()) == (not stopped)
