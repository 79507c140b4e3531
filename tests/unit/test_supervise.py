"""A supervisor restarts what dies, gives up loudly, and stops in order."""

import sys
import time

from ffb import supervise
from ffb.supervise import Child, Supervisor


def child(tmp_path, code, name="producer 0", keeps=True):
    return Child(name, [sys.executable, "-c", code], keeps, tmp_path / f"{name}.log")


def poll_until(supervisor, done, seconds=120.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, supervisor.events
        supervisor.poll()
        time.sleep(0.01)


def test_one_that_dies_is_restarted_and_its_last_words_are_told(tmp_path):
    flag = tmp_path / "second"
    code = (
        "import pathlib, sys, time\n"
        f"flag = pathlib.Path({str(flag)!r})\n"
        "if not flag.exists():\n"
        "    flag.touch(); sys.exit('no beam today')\n"
        "time.sleep(60)\n"
    )
    supervisor = Supervisor([child(tmp_path, code)])
    supervisor.start()
    poll_until(supervisor, lambda: supervisor.children[0].restarts == 1)
    assert "exit code 1" in supervisor.events[0]
    assert "no beam today" in supervisor.events[0]
    assert supervisor.children[0].alive
    (said,) = supervisor.status["children"]
    assert (said["restarts"], said["why"], said["alive"]) == (1, "exit code 1", True)
    assert said["died"] > 0
    supervisor.children[0].process.kill()
    assert not supervisor.stop()


def test_one_that_cannot_live_is_given_up_loudly(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(supervise, "GIVE_UP", 3)
    supervisor = Supervisor([child(tmp_path, "import sys; sys.exit(3)")])
    supervisor.start()
    poll_until(supervisor, lambda: supervisor.children[0].gave_up)
    assert "died 3 times in a row (exit code 3) and is left alone" in supervisor.events[-1]
    assert supervisor.finished("producer")


def test_one_that_refuses_to_start_is_not_tried_again(tmp_path):
    supervisor = Supervisor(
        [child(tmp_path, "import sys; print('no gain', file=sys.stderr); exit(2)")]
    )
    supervisor.start()
    poll_until(supervisor, lambda: supervisor.children[0].gave_up)
    assert (
        "refuses to start (exit code 2) and is left alone; its last words: no gain"
        in (supervisor.events[0])
    )


def test_one_that_ends_well_is_done_and_not_restarted(tmp_path):
    supervisor = Supervisor([child(tmp_path, "pass", keeps=False)])
    supervisor.start()
    poll_until(supervisor, lambda: supervisor.finished("producer"))
    assert supervisor.children[0].restarts == 0
    assert supervisor.stop()


def test_one_that_dies_of_being_asked_to_stop_had_nothing_to_do(tmp_path):
    """It has not begun yet, or is on its way out: who has work handles the signal."""
    supervisor = Supervisor([child(tmp_path, "import time; time.sleep(60)")])
    supervisor.start()
    assert supervisor.stop()
    assert supervisor.events == []


def test_stop_asks_politely_and_then_kills(tmp_path):
    polite = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\n"
        "print('up', file=sys.stderr, flush=True)\n"
        "signal.pause()\n"
    )
    deaf = polite.replace("lambda *a: sys.exit(0)", "signal.SIG_IGN").replace(
        "pause()", "sigwait([10])"
    )
    first, second = child(tmp_path, polite, "polite"), child(tmp_path, deaf, "deaf")
    supervisor = Supervisor([first, second])
    supervisor.start()
    poll_until(supervisor, lambda: "up" in first.last_words() and "up" in second.last_words())
    assert supervisor.stop("polite")
    assert not supervisor.stop("deaf", grace_s=0.2)
    assert "deaf ended with -9" in supervisor.events[-1]
