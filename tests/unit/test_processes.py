"""What a producer took arrives, whatever becomes of its run."""

import pytest

from ffb import config, processes
from ffb.testing.listed import ListedRun
from tests.unit.test_produce import ENERGY, TOML, Source, Window, shots


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
