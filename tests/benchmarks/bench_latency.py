"""How long a shot takes to the file and to the page, at 120 Hz, on the whole service.

Runs ``ffb demo`` and looks at its page in headless Chromium, on the same machine, and reads what
the service itself says: from the moment a producer has taken a shot to its commit, and to its
being drawn. ``python -m tests.benchmarks.bench_latency``.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.benchmarks.harness import machine
from tests.browser.chrome import Chrome


async def look(url: str, ended: threading.Event) -> None:
    """Keep the page open until the demo has ended."""
    async with Chrome() as chrome:
        await chrome.open(url)
        while not ended.is_set():
            await asyncio.sleep(0.1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=int, default=30)
    p.add_argument("--no-page", action="store_true", help="measure without a browser")
    a = p.parse_args()
    ended, viewers, committed, logs = threading.Event(), [], "", ""
    with tempfile.TemporaryDirectory() as out:
        words = ["demo", "--seconds", str(a.seconds), "--out", out]
        demo = subprocess.Popen(
            [sys.executable, "-m", "ffb.cli", *words, *(["--no-page"] if a.no_page else [])],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": out, "PYTHONUNBUFFERED": "1"},
        )
        assert demo.stdout is not None
        for line in demo.stdout:
            if found := re.search(r"logs of the processes: (\S+)", line):
                logs = found[1]
            if found := re.search(r"page: (\S+)", line):
                url = found[1]
                viewers.append(threading.Thread(target=lambda u=url: asyncio.run(look(u, ended))))
                viewers[-1].start()
            if found := re.search(r"p50 \d+ ms  p95 \d+ ms", line):
                committed = found[0]
        demo.wait()
        ended.set()
        for viewer in viewers:
            viewer.join()
    print(f"120 Hz, 0.5 Mpx Jungfrau, 20 scalars, 3 curves, 1 image, 2 producers, {a.seconds} s")
    print(machine())
    print(f"shot to file: {committed}")
    if not a.no_page:
        said = Path(logs, "dashboard.log").read_text()
        shown = re.findall(r"shot to \w+ p50_ms=\S+ p95_ms=\S+", said)
        print(shown[-1] if shown else "no page was drawn")


if __name__ == "__main__":
    main()
