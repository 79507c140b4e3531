"""Nothing is compiled while shots wait: not in a run, and from a warm cache not before it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from ffb.testing.fabricate import save_constants

pytestmark = [
    pytest.mark.psana,
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing compiles"),
]

TOML = Path(__file__).with_name("service.toml")

#: A producer's work on a run, without its wire: what is compiled before it begins, and in it.
PRODUCER = """
import json, sys
from ffb.testing.guard import Compiled
with Compiled() as before:
    from ffb.config import load
    from ffb.plan import Plan
    from ffb.shot import BeginStep, Idle
    from ffb.sources.choose import source_of
    config = load(sys.argv[1])
    run = next(source_of(config).runs())
    plan = Plan.make(config, run)
with Compiled() as within:
    rows = 0
    for item in run:
        if isinstance(item, BeginStep):
            plan.step(item)
        elif not isinstance(item, Idle) and plan.take(item, 0):
            rows += len(plan.close().columns["spot/present"])
            plan.close_sums()
    rows += len(plan.close().columns["spot/present"])
print(json.dumps([rows, before.names, within.names]))
"""


def produced(file):
    """Rows of a run, what a new process compiled before it, and what within."""
    command = [sys.executable, "-W", "ignore", "-c", PRODUCER, str(file)]
    done = subprocess.run(command, env=os.environ, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_waits_for_no_compiler(tmp_path, run_file, run_spec):
    save_constants(tmp_path, run_spec)
    text = TOML.read_text().replace('kind = "psana"', f'kind = "files"\npaths = ["{run_file}"]')
    dropped = ('shmem = "TAG"', 'exp = "mfxx49820"')
    lines = [line for line in text.splitlines() if line not in dropped]
    (file := tmp_path / "files.toml").write_text("\n".join(lines))
    rows, _, within = produced(file)
    assert rows > 8
    assert within == []
    again, before, within = produced(file)
    assert (again, before, within) == (rows, [], [])
