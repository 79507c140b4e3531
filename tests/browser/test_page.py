"""The page in a real browser: it fills, moves with the commits, and says when data are old."""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ffb.dashboards.app import Dashboard
from ffb.dashboards.views.view import STALE
from ffb.live.model import Live
from ffb.sink import Counts
from ffb.source import RunInfo
from ffb.transport import Publisher
from tests.browser.chrome import DEADLINE_S, Chrome
from tests.unit.live_rows import PROVENANCE, SCHEMA, rows
from tests.unit.test_live import STATUS

pytestmark = pytest.mark.browser

ARTEFACTS = Path(__file__).parent / "artefacts"

#: Data of every glyph of the visible document, by title of its figure.
STATE = """(() => {
  const out = {};
  for (const model of Bokeh.documents[0]._all_models.values()) {
    if (model.type !== "Figure" || !model.title || !model.title.text) continue;
    const name = model.title.text.replace(/^STALE +/, "").split("   ")[0];
    out[name] = model.renderers.map(r => {
      const data = r.data_source.data, key = data.image ? "image" : data.y ? "y" : "top";
      return Array.from(key === "image" ? data.image[0] : data[key] || []);
    });
    out[name + " title"] = model.title.text;
  }
  return JSON.stringify(out);
})()"""


class Aggregator(threading.Thread):
    """Stands in for the aggregator: commits 20 rows each time it is told to."""

    def __init__(self, address, run=7):
        super().__init__(daemon=True)
        self.publisher = Publisher(address)
        self.live = Live()
        self.live.begin_run(RunInfo("tstx00001", run), SCHEMA, PROVENANCE)
        for step in range(12):
            self.live.step(step, {"lxt": -1 + 0.5 * step, "step_value": float(step)}, "")
        self.rows = 0
        self.go, self.stopped = threading.Semaphore(3), threading.Event()

    def run(self):
        while not self.stopped.is_set():
            if self.go.acquire(blocking=False):
                batch = rows(self.rows, 20)
                batch.read[:] = time.time_ns()
                self.live.append(batch)
                self.rows += 20
                self.live.commit(Counts(self.rows // 20, self.rows, self.rows))
            self.publisher.send(self.live.snapshot(STATUS))
            self.stopped.wait(0.05)
        self.publisher.close()

    def end(self):
        self.stopped.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()


@pytest.fixture
def service(tmp_path):
    address = f"ipc://{tmp_path}/views"
    aggregator, dashboard = Aggregator(address), Dashboard(address)
    aggregator.start()
    yield aggregator, dashboard
    aggregator.end()


def serve_while(dashboard, coroutine):
    """Serve the page here, as the process does, while ``coroutine`` looks at it from a thread."""

    def look_and_stop():
        try:
            return asyncio.run(coroutine)
        finally:
            dashboard.stop()

    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(look_and_stop)
        dashboard.run()
        return looked.result()


#: Of every card of the bar: its right and bottom edge, and whether its text fits.
CARDS = """(() => {
  const under = n => [...(n.shadowRoot ? [n.shadowRoot] : []), ...n.children]
  const deep = n => [n, ...under(n).flatMap(deep)]
  return deep(document.documentElement).filter(n => n.classList && n.classList.contains("card"))
    .map(n => [n.getBoundingClientRect().right, n.getBoundingClientRect().bottom,
               n.scrollWidth <= n.clientWidth])
})()"""

TABS = "[...Bokeh.documents[0]._all_models.values()].find(m => m.type === 'Tabs')"


CURVE = "spot/sum ± SEM against lxt"


async def shown(chrome, page, text, points):
    """State of the page when it shows ``text``, and the scan curve has so many ``points``.

    Panels are brought up to date one after the other.
    """
    end = time.monotonic() + DEADLINE_S
    while True:
        said = await chrome.evaluate(page, STATE)
        state = json.loads(said)
        if text in said and len(max(state.get(CURVE, [[]]), key=len)) == points:
            return state
        assert time.monotonic() < end, said
        await asyncio.sleep(0.1)


async def look(aggregator, dashboard):
    ARTEFACTS.mkdir(exist_ok=True)
    async with Chrome() as chrome:
        page = await chrome.open(dashboard.url)
        before = await shown(chrome, page, "N 51 ", 2)  # steps 0 and 1 after 60 shots
        for _ in range(7):
            aggregator.go.release()
        after = await shown(chrome, page, "N 172 ", 4)
        await chrome.picture(page, ARTEFACTS / "overview.png")
        text = await chrome.evaluate(
            page, "Array.from(Bokeh.documents[0]._all_models.values()).find(m => m.text).text"
        )
        grey = "[...Bokeh.documents[0]._all_models.values()].some(m => m.background_fill_color"
        await chrome.until(page, f"{grey} === '{STALE}')")
        await chrome.picture(page, ARTEFACTS / "stale.png")
        return before, after, text, dashboard.model


def test_the_scan_curve_and_the_image_move_with_the_commits(service):
    before, after, text, model = serve_while(service[1], look(*service))
    image = "spot/area: mean"
    assert before[image] != after[image]
    assert len(after[image][0]) == 60
    assert "none lost" in text
    assert "run 7 recording" in text
    assert model.rejected == 0
    assert os.path.getsize(ARTEFACTS / "overview.png") > 20_000


async def restart(address, dashboard):
    """Two sessions on different tabs and screens, while one aggregator follows another."""
    ARTEFACTS.mkdir(exist_ok=True)
    first = Aggregator(address)
    first.start()
    async with Chrome((1366, 768)) as chrome:
        one, two = await chrome.open(dashboard.url), await chrome.open(dashboard.url)
        await chrome.until(one, f"{STATE}.includes('N 51 ')")
        await chrome.evaluate(two, f"{TABS}.active = 1")
        await chrome.until(two, f"{STATE}.includes('gas/energy')")
        assert not await chrome.evaluate(one, f"{STATE}.includes('gas/energy')")
        before = dashboard.model.generation
        first.end()
        second = Aggregator(address, run=8)
        second.start()
        for page in (two, one):
            await chrome.command("Page.bringToFront", page)  # a hidden page draws nothing
            await chrome.until(page, "document.title.includes('run 8')")
            await chrome.until(page, f"{STATE}.includes('N 51 ')")
        assert dashboard.model.generation > before
        await chrome.evaluate(one, "window.scrollTo(0, 1e6)")
        cards = await chrome.evaluate(one, CARDS)
        await chrome.picture(one, ARTEFACTS / "small.png")
        loaded = await chrome.evaluate(
            one, "performance.getEntriesByType('resource').map(e => new URL(e.name).host)"
        )
        scrolled = await chrome.evaluate(one, "window.scrollY")
        drawn = dashboard.model.document.percentiles(50)[0]
    second.end()
    return cards, loaded, scrolled, drawn


def test_the_bar_stays_in_sight_and_nothing_comes_from_outside(tmp_path):
    address = f"ipc://{tmp_path}/views"
    dashboard = Dashboard(address)
    cards, loaded, scrolled, _ = serve_while(dashboard, restart(address, dashboard))
    assert scrolled > 100
    assert len(cards) == 12
    for right, bottom, fits in cards:
        assert fits
        assert right <= 1366
        assert 0 < bottom <= 180
    assert loaded
    assert set(loaded) == {dashboard.url.split("/")[2]}
