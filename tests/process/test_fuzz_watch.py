"""What the fuzzer takes for a hang: endless work or endless sleep, but not a busy machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.soak import fuzz
from tests.soak.fuzz import Progress, look


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HANG_S", 2.0)


def hangs(*looks: tuple[int, float, bool]) -> bool:
    """Whether it is said at the last look, and at none before."""
    progress = Progress()
    *before, last = [progress.hangs(*look) for look in looks]
    assert not any(before)
    return last


@pytest.mark.usefixtures("patience")
def test_a_case_hangs_that_works_or_sleeps_for_too_long() -> None:
    assert hangs((1, 5.0, False), (1, 6.0, False), (1, 7.1, False))
    assert not hangs((1, 5.0, False), (1, 6.0, False), (2, 7.1, False), (2, 9.0, False))
    assert hangs((1, 5.0, False), *[(1, 5.0, True)] * 11)
    assert not hangs((1, 5.0, False), *[(1, 5.0, False)] * 100)  # it gets no processor
    slow = [(1, 5.0 + k / 100, True) for k in range(100)]  # it gets little
    assert not hangs((1, 5.0, False), *slow)
    assert not hangs((1, 5.0, False), *[(k // 10, 5.0, True) for k in range(100)])


BUSY = "import sys; print(flush=True); [None for _ in iter(int, 1)]"
DEAF = "import sys, time; print(flush=True); time.sleep(600)"


@pytest.mark.parametrize(("program", "asleep"), [(BUSY, False), (DEAF, True)])
def test_a_process_is_seen_to_work_or_to_sleep(program: str, asleep: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        before, end = look(process.pid)[0], time.monotonic() + 60
        while (now := look(process.pid)) and now[1] != asleep:
            assert time.monotonic() < end, now
        if not asleep:
            while look(process.pid)[0] <= before:
                assert time.monotonic() < end
            process.send_signal(signal.SIGSTOP)  # as one that gets no processor: no sleep
            while look(process.pid) != look(process.pid):
                assert time.monotonic() < end
            assert not look(process.pid)[1]
    finally:
        process.kill()
        process.communicate()
