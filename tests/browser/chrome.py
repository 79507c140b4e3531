"""A headless Chromium, driven over its own protocol with the tornado that Bokeh brings."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tornado.websocket import websocket_connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-default-apps",
    "--disable-extensions",
    "--mute-audio",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--remote-debugging-port=0",
)


#: What has to come about some time does so within this, also on a busy machine [s].
DEADLINE_S = 120


class Chrome:
    """``async with Chrome() as chrome`` opens pages, evaluates in them, takes pictures."""

    def __init__(self, size=(1920, 1080)):
        self.size = size
        self._replies = 0

    async def __aenter__(self):
        self._profile = Path(tempfile.mkdtemp(prefix="ffb-chrome-"))
        binary = shutil.which("chromium")
        window, profile = (
            "--window-size={},{}".format(*self.size),
            f"--user-data-dir={self._profile}",
        )
        self._process = subprocess.Popen(
            [binary, *FLAGS, window, profile, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._profile / "DevToolsActivePort"
        end = time.monotonic() + DEADLINE_S
        while not (port.exists() and port.read_text().count("\n")):
            assert time.monotonic() < end, "chromium did not start"
            assert self._process.poll() is None, "chromium ended at once"
            await asyncio.sleep(0.05)
        number, path = port.read_text().split("\n")[:2]
        self._socket = await websocket_connect(
            f"ws://127.0.0.1:{number}{path}", max_message_size=1 << 28
        )
        return self

    async def __aexit__(self, *failure):
        self._socket.close()
        while await asyncio.wait_for(self._socket.read_message(), DEADLINE_S) is not None:
            pass  # until the socket is closed, so that nothing is left to the collector
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        shutil.rmtree(self._profile, ignore_errors=True)

    async def command(self, method, session=None, **params):
        self._replies += 1
        message = {"id": self._replies, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        await self._socket.write_message(json.dumps(message))
        while True:
            reply = json.loads(await asyncio.wait_for(self._socket.read_message(), DEADLINE_S))
            if reply.get("id") == message["id"]:
                assert "error" not in reply, reply
                return reply["result"]

    async def open(self, url):
        target = await self.command("Target.createTarget", url=url)
        attached = await self.command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = attached["sessionId"]
        idle = "!!(window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle)"
        await self.until(page, idle)
        return page

    async def evaluate(self, page, expression):
        done = await self.command(
            "Runtime.evaluate", page, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, page, expression, seconds=DEADLINE_S):
        end = time.monotonic() + seconds
        while not (value := await self.evaluate(page, expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            await asyncio.sleep(0.1)
        return value

    async def picture(self, page, path):
        shot = await self.command("Page.captureScreenshot", page)
        Path(path).write_bytes(base64.b64decode(shot["data"]))
