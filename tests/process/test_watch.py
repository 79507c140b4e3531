"""How often children died, and of what, gets from `ffb run` to every page."""

import time

import pytest

from ffb.aggregating.serve import Service
from ffb.config import parse
from ffb.service.report import SUPERVISOR
from ffb.service.watch import Told
from ffb.supervise import Child, Supervisor
from ffb.transport import Link
from ffb.wire import unpack
from ffb.writers.small_data import SmallData


@pytest.fixture
def config(tmp_path):
    return parse(
        {
            "source": {"kind": "synthetic", "exp": "tstx00001"},
            "transport": {"aggregator": f"ipc://{tmp_path}/a", "views": f"ipc://{tmp_path}/v"},
        }
    )


@pytest.fixture
def service(config, tmp_path):
    out = Service(config, lambda config, info: SmallData(tmp_path))
    yield out
    out.close()


def until(done, *turns):
    end = time.monotonic() + 120
    while not (value := done()):
        assert time.monotonic() < end
        for turn in turns:
            turn()
    return value


def children(service):
    return unpack(service._snapshot(time.monotonic_ns()))[0]["status"]["children"]


def test_deaths_of_children_reach_the_snapshot(config, service, tmp_path):
    died = time.time_ns()
    log = tmp_path / "aggregator.log"
    child = Child("aggregator", [], True, log, restarts=2, died=died, why="signal SIGKILL")
    told = Told(config)
    try:
        supervisor = Supervisor([child])
        (said,) = until(lambda: children(service), lambda: told.turn(supervisor), service.turn)
    finally:
        told.close()
    assert (said["name"], said["restarts"], said["died"]) == ("aggregator", 2, died)
    assert said["why"] == "signal SIGKILL"
    assert "producers" in unpack(service._snapshot(time.monotonic_ns()))[0]["status"]
    assert service._said.producers(time.monotonic_ns()) == {}


def test_a_second_supervisor_is_refused_and_goes_on_without_telling(config, service, caplog):
    first = Link(service.hub.address, SUPERVISOR)
    until(lambda: first.connected, first.pump, service.turn)
    second = Told(config)
    turn = lambda: second.turn(Supervisor([]))  # noqa: E731
    until(lambda: "not told about our processes" in caplog.text, turn, service.turn)
    second.turn(Supervisor([]))
    second.close()
    first.close()
