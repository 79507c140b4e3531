"""`ffb run` while it runs: children kept alive, the page told how they are, a table for us."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live as Screen

from ffb.config import Config
from ffb.service.report import SUPERVISOR
from ffb.service.table import line, table
from ffb.supervise import Supervisor
from ffb.transport import Link, RefusedError, Subscriber
from ffb.wire import unpack

log = logging.getLogger(__name__)

#: Seconds between two lines of progress where there is no terminal, and between two status.
LINE_S, STATUS_S = 2.0, 1.0


class Told:
    """Tells the aggregator, and through it every page, how the children are; it may be away."""

    def __init__(self, config: Config) -> None:
        address, key = config.endpoints().aggregator, config.key(secret=False)
        self._link: Link | None = Link(address, SUPERVISOR, key=key)
        self._told = 0.0

    def turn(self, supervisor: Supervisor) -> None:
        """Say it, once a second."""
        if self._link is None:
            return
        try:
            self._link.pump()
        except RefusedError as e:  # another `ffb run` has the same aggregator
            log.warning("the page is not told about our processes: %s", e)
            self.close()
            return
        if (now := time.monotonic()) - self._told > STATUS_S:
            self._told = now
            self._link.status(supervisor.status)

    def close(self) -> None:
        """Give the socket back."""
        if self._link is not None:
            self._link.close()
            self._link = None


def watch(
    config: Config,
    supervisor: Supervisor,
    console: Console,
    stopped: Sequence[object],
    *,
    page: bool,
) -> None:
    """Keep children alive and show how it goes until producers are through or we are stopped."""
    views, told = Subscriber(config.endpoints().views, config.key(secret=False)), Told(config)
    since, said = time.monotonic(), 0.0
    address, meta, text = "", None, ""
    try:
        with Screen(console=console, auto_refresh=False, transient=False) as screen:
            while not (stopped or supervisor.finished("producer") or supervisor.lost("aggregator")):
                supervisor.poll()
                told.turn(supervisor)
                if frame := views.receive(0.2):
                    meta = unpack(frame)[0]
                if page and not address:
                    address = _address(supervisor)
                    if address and not console.is_terminal:
                        console.print(f"page: {address}", highlight=False)
                if console.is_terminal:
                    screen.update(table(meta, supervisor.children, address, since), refresh=True)
                elif time.monotonic() - said > LINE_S and line(meta) != text:
                    said, text = time.monotonic(), line(meta)
                    console.print(text, highlight=False, soft_wrap=True)
    finally:
        views.close()
        told.close()


def _address(supervisor: Supervisor) -> str:
    """Address the dashboard has printed, once it has."""
    return supervisor.child("dashboard").told.strip()
