"""The Bokeh server: one document a session, each on its own tick."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from socket import socket

import numpy as np
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.layouts import column
from bokeh.models.css import InlineStyleSheet
from bokeh.models.widgets import Div
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from ffb.dashboards.feed import Feed
from ffb.dashboards.layout import Page
from ffb.dashboards.model import LiveModel
from ffb.dashboards.pace import Pace
from ffb.dashboards.status import STICKY, STYLE, render

log = logging.getLogger(__name__)

#: A document looks for a new generation this often.
TICK_MS = 100

#: Ages on the bar grow this often [s] when nothing else moves.
AGES_S = 0.5


class Session:
    """One viewer's document: a status bar, and a page that is rebuilt when the run changes.

    Nothing is sent before the browser has drawn what it got: a slow one skips commits and shows
    recent data all the same.
    """

    def __init__(self, document: Document, model: LiveModel) -> None:
        self.model, self._document = model, document
        self._page: Page | None = None
        self._shown: tuple[int, bool] = (-1, False)
        self._read = self._drawn_read = 0
        self._pace = Pace(document, self._drawn)
        self._bar = Div(
            text=render(None),
            sizing_mode="stretch_width",
            styles=STICKY,
            stylesheets=[InlineStyleSheet(css=STYLE)],
            name="status",
            tags=[self._pace.beat],
        )
        self._body = column(Div(text=""), sizing_mode="stretch_width")
        document.title = "ffb"
        for root in (self._bar, self._body):
            document.add_root(root)
        self._update()
        document.add_periodic_callback(self.tick, TICK_MS)

    def tick(self) -> None:
        """Show the newest snapshot; when there is none newer, only let the ages grow."""
        moved = self.model.generation != self._shown[0]
        if self._pace.ready and (moved or self._pace.age_s > AGES_S):
            self._update()
            self._pace.send()

    def _update(self) -> None:
        generation, snapshot = self.model.latest()
        self._bar.text = render(snapshot, self.model.document.percentiles(50, 95))
        before, self._shown = self._shown, (generation, snapshot is not None and snapshot.stale)
        if snapshot is None or not snapshot.meta["exp"]:
            return
        if self._page is None or self._page.key != snapshot.key:
            self._page = Page(snapshot)
            self._page.refresh(snapshot)
            self._body.children = [self._page.layout]
            self._document.title = f"{snapshot.meta['exp']} run {snapshot.meta['run']} · ffb"
            self._drawn_read = 0
        elif self._shown != before:
            self._page.refresh(snapshot)
        self._read = snapshot.meta["newest_read"]

    def _drawn(self) -> None:
        """Time the way of the newest shot to the browser; what a late joiner missed has no time."""
        if 0 < self._drawn_read < self._read:
            self.model.document.add(np.array([time.time_ns() - self._read]))
        self._drawn_read = self._read


class Dashboard:
    """The server and its feed: made, then run until stopped."""

    def __init__(
        self, views: str, address: str = "127.0.0.1", port: int = 0, key: Path | None = None
    ) -> None:
        sockets, port = _listening(address, port)
        self.model = LiveModel()
        self.feed = Feed(views, self.model, key)
        self._loop = IOLoop(make_current=True)
        handler = FunctionHandler(lambda document: _session(document, self.model))
        pages = BokehTornado(
            {"/": Application(handler)},
            extra_websocket_origins=[f"{address}:{port}", f"localhost:{port}"],
            check_unused_sessions_milliseconds=1000,
            unused_session_lifetime_milliseconds=5000,
        )
        http = HTTPServer(pages)
        http.add_sockets(sockets)
        self.server = BaseServer(self._loop, pages, http)
        self.url = f"http://{address}:{port}/"

    def run(self, ready: Callable[[str], None] = lambda url: None) -> None:
        """Serve until :meth:`stop`; ``ready`` is called with the page's address."""
        self.feed.start()
        self.server.start()
        self._loop.add_callback(ready, self.url)
        try:
            self._loop.start()
        finally:
            self.server.stop()
            self.feed.stop()
            self._loop.close()

    def stop(self) -> None:
        """End :meth:`run`; safe in a signal handler and from any thread."""
        self._loop.add_callback(self._loop.stop)


def _listening(address: str, port: int) -> tuple[list[socket], int]:
    """Sockets of the page and their port; ``OSError`` names the address and what to do."""
    try:
        return bind_sockets(address, port)
    except OSError as e:
        raise OSError(
            f"the page cannot be served at {address}:{port}: {e.strerror}; another page may be "
            "there: give dashboard.port another number, or 0 to take a free one"
        ) from e


def _session(document: Document, model: LiveModel) -> None:
    Session(document, model)
