"""Runs to produce from, and a link that keeps what is sent."""

from ffb.batch import Batch
from ffb.shot import Input
from ffb.testing.listed import ListedRun, ListedShot

TOML = """
[source]
kind = "synthetic"

[inputs]
energy = { detector = "gasdet", field = "energy", record = true }

[batch]
shots = 4
age_ms = 60000
"""
ENERGY = {"energy": Input("value", "<f8", ())}


class Window:
    """A link whose aggregator acknowledges when told to; ``size`` messages fit."""

    def __init__(self, size=1000, acks=False):
        self.size, self.acks = size, acks
        self.sent, self.waiting, self.said = [], 0, []
        self.gauges = {"in_flight_bytes": 0, "high_water_bytes": 0, "window_bytes": size}
        self.held = self.burst = False
        self.connected = True
        self.alarm, self.noted, self.place = "", [], 0
        self.promises, self.promised = [], False

    @property
    def room(self):
        return self.waiting < self.size

    @property
    def fill(self):
        return self.waiting / self.size

    def expect(self, size):
        self.expected = size

    def note(self, timestamp):
        self.noted.append(timestamp)

    def promise(self, header, schema, body):
        self.promises.append((header, schema, body, len(self.sent)))

    def withdraw(self):
        self.promises.append("withdrawn")

    def send(self, header, schema, body, place=0):
        self.place = place or self.place
        self.sent.append((header, body))
        self.waiting += isinstance(body, Batch)

    def pump(self, timeout=0.0):
        if self.acks:
            self.waiting = 0

    def status(self, numbers):
        self.said.append(numbers)

    def batches(self):
        return [(h, b) for h, b in self.sent if isinstance(b, Batch)]


class Source:
    def __init__(self, *runs, live=True):
        self.all, self.live, self.stopped = runs, live, False

    def runs(self):
        yield from self.all

    def stop(self):
        self.stopped = True


def shots(n, start=0):
    return [ListedShot(start + i, {"energy": float(start + i)}) for i in range(n)]


def run_of(*items, inputs=ENERGY):
    return ListedRun(inputs, items, motors=("lxt",))
