"""How fast a browser can take it: one update is on its way, the next waits until it is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable

from bokeh.core.properties import Int
from bokeh.document import Document
from bokeh.model import DataModel
from bokeh.models.callbacks import CustomJS

#: An update that is not acknowledged for so long is taken for lost.
LOST_S = 10.0

#: A page to which nothing comes for so long has lost its server.
SILENCE_S = 15.0

#: Once drawn an update is acknowledged; when none comes the page says so itself, because whoever
#: would say so is gone. It begins anew when there is a server again after there was none.
DRAWN = """
const page = document.body.style
page.filter = ""
document.getElementById("ffb-silence")?.remove()
clearTimeout(window.ffb_silence)
clearInterval(window.ffb_knock)
const last = new Date().toLocaleTimeString()
window.ffb_silence = setTimeout(() => {
  page.filter = "grayscale(1) opacity(0.4)"
  document.title = "NO CONNECTION · ffb"
  const said = document.createElement("div")
  said.id = "ffb-silence"
  said.textContent = `NO CONNECTION to ffb since ${last}: all of this is as of then.`
    + " If ffb run has ended, start it again; this page comes back with it."
  said.style = "position: fixed; top: 40%; left: 20%; right: 20%; padding: 20px; z-index: 200;"
    + " font: 600 20px system-ui, sans-serif; background: #fbdedb; border: 3px solid #c62828"
  document.documentElement.appendChild(said)
  let down = false
  window.ffb_knock = setInterval(() => fetch(location.href).then(
    () => { if (down) location.reload() }, () => { down = true }), 3000)
}, SILENCE_MS)
const sent = beat.sent
requestAnimationFrame(() => setTimeout(() => { beat.drawn = sent }, 0))
"""


class Beat(DataModel):
    """What server and browser tell each other: number of the last update sent, and drawn."""

    sent: int = Int(default=0)  # type: ignore[assignment]  # a descriptor, an int to whoever asks
    drawn: int = Int(default=0)  # type: ignore[assignment]


class Pace:
    """A window of one unacknowledged update; a hidden tab draws nothing and so gets nothing."""

    def __init__(self, document: Document, drawn: Callable[[], None]) -> None:
        self.beat = Beat()
        self._sent_at = 0.0
        self._drawn = drawn
        code = DRAWN.replace("SILENCE_MS", str(SILENCE_S * 1e3))
        answer = CustomJS(args={"beat": self.beat}, code=code)
        document.js_on_event("document_ready", answer)  # also to what was sent before it was there
        self.beat.js_on_change("sent", answer)
        self.beat.on_change("drawn", self._acknowledged)

    @property
    def ready(self) -> bool:
        """Whether the browser has drawn what it was sent, or will never say so."""
        return self.beat.drawn >= self.beat.sent or self.age_s > LOST_S

    @property
    def age_s(self) -> float:
        """Seconds since the last update was sent."""
        return time.monotonic() - self._sent_at

    def send(self) -> None:
        """End an update; to be called when everything that belongs to it was set."""
        self._sent_at = time.monotonic()
        self.beat.sent += 1

    def _acknowledged(self, attr: str, old: int, new: int) -> None:
        if new == self.beat.sent:
            self._drawn()
