"""What every test may ask for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from ffb.testing.guard import no_network
from ffb.testing.shmem_server import clean, sweep
from ffb.testing.truth import RunSpec

os.environ["PS_PARALLEL"] = "none"
os.environ.pop("COLUMNS", None)  # which xdist gives its workers, and by which tables are broken

# Every run tests the same; `--hypothesis-profile default` looks further.
settings.register_profile("repeatable", derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the random numbers of all test modules anew, whatever this worker has run before."""
    for name, module in sys.modules.items():
        if name.startswith("tests."):
            for value in vars(module).values():
                if isinstance(value, np.random.Generator):
                    bits = value.bit_generator
                    bits.state = type(bits)(bits.seed_seq).state


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    with no_network():
        yield


def missing(what: str, consequence: str) -> None:
    """Skip loudly without ``what``; in CI, which has to have it, fail."""
    sentence = f"{what} IS MISSING: {consequence}"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(autouse=True)
def _psana_and_browser(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("psana") and not importlib.util.find_spec("psana"):
        missing("PSANA", "nothing that reads xtc2 is tested")
    if request.node.get_closest_marker("browser") and not shutil.which("chromium"):
        missing("CHROMIUM", "the page is tested in no browser; it needs root to be installed")


@pytest.fixture(scope="session")
def run_spec() -> RunSpec:
    """The truth about the run that ``run_file`` and ``experiment_dir`` hold: 60 shots, 3 steps."""
    return RunSpec(steps=3, shots_per_step=20, segments=1)


@pytest.fixture(scope="session")
def run_file(run_spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as one event-built xtc2 file."""
    if not importlib.util.find_spec("psana"):
        missing("PSANA", "it writes the xtc2 files of the tests")
    from ffb.testing.fabricate import write_run

    return write_run(tmp_path_factory.mktemp("run") / "run.xtc2", run_spec)


@pytest.fixture(scope="session")
def experiment_dir(run_spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a directory of four streams with their smalldata."""
    if not importlib.util.find_spec("psana"):
        missing("PSANA", "it writes the xtc2 files of the tests")
    from ffb.testing.fabricate import write_experiment

    return write_experiment(tmp_path_factory.mktemp("exp"), run_spec)


@pytest.fixture
def tag() -> Iterator[str]:
    """Name for shared memory, and nothing left of it afterwards; nor of runs that were killed."""
    sweep()
    name = f"ffb{os.getpid()}x{uuid.uuid4().hex[:8]}"
    yield name
    clean(name)


Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def shmem_server(tag: str) -> Iterator[Serve]:
    """Start ``ffb.testing.shmem_server`` on files, under ``tag`` unless another one is given.

    ``shmem_server(run_file, "--clients", 2, ...)`` returns the process once it takes clients.
    """
    started: list[tuple[str, subprocess.Popen[str]]] = []

    def start(*args: object, tag: str = tag) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ffb.testing.shmem_server", "--tag", tag, *map(str, args)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append((tag, process))
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"serving {tag}\n", f"the server did not start: {line!r}"
        return process

    yield start
    for name, process in started:
        process.kill()
        process.communicate()
        clean(name)
