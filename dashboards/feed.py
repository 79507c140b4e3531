"""One thread that keeps the model at the newest snapshot; it never sees a document."""

from __future__ import annotations

import threading
from pathlib import Path

from ffb.dashboards.model import LiveModel
from ffb.transport import Subscriber


class Feed(threading.Thread):
    """Receives snapshots from ``address`` into ``model`` until stopped.

    ``key`` is the file with the aggregator's public key, needed across hosts.
    """

    def __init__(self, address: str, model: LiveModel, key: Path | None = None) -> None:
        super().__init__(name="ffb-feed", daemon=True)
        self.address, self.model, self.key = address, model, key
        self._stopped = threading.Event()

    def run(self) -> None:
        """Drain to the newest, again and again."""
        subscriber = Subscriber(self.address, self.key)
        try:
            while not self._stopped.is_set():
                frame = subscriber.receive(0.1)
                if frame is not None:
                    self.model.push(frame)
        finally:
            subscriber.close()

    def stop(self) -> None:
        """End the thread and give its socket back."""
        self._stopped.set()
        self.join(2.0)
