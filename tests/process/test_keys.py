"""Across hosts the processes speak only with keys, and the configuration names them."""

import numpy as np
import pytest
import zmq.auth

from ffb import config
from ffb.aggregating.serve import Service
from ffb.batch import Batch
from ffb.sink import Provenance
from ffb.transport import Link, Subscriber
from ffb.wire import EndRun, Header, unpack
from tests.unit.producers import SCHEMA, Memory

HEAD = Header("begin_run", "tstx00001", 7, 1)


@pytest.fixture
def settings(tmp_path):
    zmq.auth.create_certificates(tmp_path, "ffb")
    for key in tmp_path.glob("ffb.key*"):
        key.chmod(0o600)
    file = tmp_path / "exp.toml"
    file.write_text(
        '[source]\nkind = "synthetic"\n[transport]\naggregator = "tcp://127.0.0.1:*"\n'
        f'views = "ipc://{tmp_path}/views"\n'
        'public_key = "ffb.key"\nsecret_key = "ffb.key_secret"\n'
    )
    return config.load(file)


class File(Memory):
    path = None


def test_rows_pass_with_the_key_and_not_without(settings):
    sink = File()
    service = Service(settings, lambda *_: sink)
    public = settings.key(secret=False)
    address = service.hub.address
    good, bad = Link(address, "good", key=public), Link(address, "bad")
    views = Subscriber(settings.endpoints().views, public)
    try:
        batch = Batch(SCHEMA, 3)
        t = np.array([1, 2, 3], np.uint64)
        for c in SCHEMA.columns:
            v = t if c.name == "timestamp" else t % 97
            batch.columns[c.name][:] = v.reshape(-1, *(1 for _ in c.shape)).astype(c.dtype)
        batch.read[:] = t.astype(np.int64) + 5
        for link in (good, bad):
            link.send(HEAD, SCHEMA, Provenance())
        counts = {"read": 3, "lost": {}}
        good.send(HEAD._replace(kind="shots", counts=counts), SCHEMA, batch)
        good.send(HEAD._replace(kind="end_run", counts=counts), None, EndRun())
        for _ in range(3000):
            good.pump()
            bad.pump()
            service.turn()
            if not good.unacked:
                break
        assert sink.rows == [1, 2, 3]
        assert not bad.connected
        assert bad.unacked == 1
        for _ in range(3000):
            service.turn()
            if frame := views.receive(0.01):
                break
        assert unpack(frame)[0]["written"] in {0, 3}
    finally:
        for end in (good, bad, views, service):
            end.close()


def test_a_service_for_other_hosts_is_refused_without_keys(settings, tmp_path):
    file = tmp_path / "open.toml"
    file.write_text(
        '[source]\nkind = "synthetic"\n[transport]\naggregator = "tcp://0.0.0.0:*"\n'
        f'views = "ipc://{tmp_path}/views"\n'
    )
    with pytest.raises(OSError, match="without a key: other hosts can reach it"):
        Service(config.load(file), lambda *_: File())
