"""How long a shot takes to the file and to the page, at 120 Hz, on the whole service.

Runs ``ffb demo`` with the page and one session attached to it, and reads what the service itself
says: from the moment a producer has taken a shot to its commit, and to the document that shows
it. ``python -m tests.benchmarks.bench_latency``.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bokeh.client import pull_session

from tests.benchmarks.harness import machine


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=int, default=20)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as out:
        words = ["demo", "--seconds", str(a.seconds), "--out", out]
        demo = subprocess.Popen(
            [sys.executable, "-m", "ffb.cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": out, "PYTHONUNBUFFERED": "1"},
        )
        assert demo.stdout is not None
        committed, logs, session = "", "", None
        for line in demo.stdout:
            if found := re.search(r"logs of the processes: (\S+)", line):
                logs = found[1]
            if found := re.search(r"page: (\S+)", line):
                session = pull_session(url=found[1])
            if found := re.search(r"p50 \d+ ms  p95 \d+ ms", line):
                committed = found[0]
        demo.wait()
        if session is not None:
            session.close()
    said = Path(logs, "dashboard.log").read_text()
    shown = re.findall(r"shot to document p50_ms=\d+ p95_ms=\d+", said)
    print(f"120 Hz, 0.5 Mpx Jungfrau and 20 features, two producers, {a.seconds} s")
    print(machine())
    print(f"shot to committed: {committed}")
    print(shown[-1] if shown else "no document was shown")


if __name__ == "__main__":
    main()
