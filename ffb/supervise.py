"""Start the processes of a service on one machine and keep them alive."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: Seconds before the first restart; doubles with every death that follows soon.
FIRST_DELAY_S, LAST_DELAY_S = 0.2, 10.0

#: A process that lived this long has recovered: its next delay is the first again.
HEALTHY_S = 30.0

#: Exit code of a process that will not start with this configuration, however often it is tried.
REFUSED = 2

#: After this many deaths in a row a process is left alone, loudly.
GIVE_UP = 8


_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, even of kill -9 (PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGTERM)


@dataclass
class Child:
    """A process to keep alive: its name, its command, and its history.

    ``keeps`` is true for one that has to run until it is told to stop; any other is done when it
    exits with 0. ``log`` collects what it says on stderr, ``log`` with the suffix ``.out`` what it
    says on stdout. ``died`` is the time of its last death [ns since 1970], ``why`` the reason.
    """

    name: str
    command: Sequence[str]
    keeps: bool
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    deaths: int = 0
    restarts: int = 0
    died: int = 0
    why: str = ""
    done: bool = False
    gave_up: bool = False

    @property
    def alive(self) -> bool:
        """Whether it is running now."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it in a session of its own: a Ctrl-C at the terminal is the supervisor's alone."""
        with self.log.open("ab") as said, self.log.with_suffix(".out").open("ab") as told:
            self.process = subprocess.Popen(  # noqa: S603  our own command line
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=said,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.started = time.monotonic()

    @property
    def told(self) -> str:
        """What it said on stdout, in all its lives."""
        out = self.log.with_suffix(".out")
        return out.read_text(errors="replace") if out.exists() else ""

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (
            self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        )
        return lines[-1] if lines else "it said nothing"


@dataclass
class Supervisor:
    """Keeps children alive, in the order in which they are to be started; stopped in reverse."""

    children: list[Child]
    events: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start all."""
        for child in self.children:
            child.start()

    def poll(self) -> None:
        """Look after every child once: note who died, restart who is due."""
        now = time.monotonic()
        for child in self.children:
            if child.done or child.gave_up or child.alive:
                continue
            if child.process is not None:
                self._died(child, child.process.returncode, now)
            elif now >= child.due:
                child.restarts += 1
                child.start()
                self._note(f"{child.name} restarted (restart {child.restarts})")

    def _died(self, child: Child, code: int, now: float) -> None:
        child.process = None
        if code == 0 and not child.keeps:
            child.done = True
            return
        child.deaths = 1 if now - child.started > HEALTHY_S else child.deaths + 1
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        child.died, child.why = time.time_ns(), why
        if code == REFUSED or child.deaths >= GIVE_UP:
            child.gave_up = True
            fate = "refuses to start" if code == REFUSED else f"died {child.deaths} times in a row"
            self._note(
                f"{child.name} {fate} ({why}) and is left alone; its last words:"
                f" {child.last_words()}; see {child.log}"
            )
            return
        delay = min(FIRST_DELAY_S * 2 ** (child.deaths - 1), LAST_DELAY_S)
        child.due = now + delay
        self._note(f"{child.name} died ({why}): {child.last_words()}; again in {delay:.1f} s")

    def _note(self, event: str) -> None:
        self.events.append(event)
        log.warning(event)

    @property
    def status(self) -> dict[str, Any]:
        """How every child is, as plain data for the page."""
        return {
            "children": [
                {
                    "name": c.name,
                    "alive": c.alive,
                    "done": c.done,
                    "gave_up": c.gave_up,
                    "restarts": c.restarts,
                    "died": c.died,
                    "why": c.why,
                }
                for c in self.children
            ]
        }

    def child(self, name: str) -> Child:
        """The child of that name."""
        return next(c for c in self.children if c.name == name)

    def finished(self, prefix: str) -> bool:
        """Whether every child whose name begins with ``prefix`` is done or given up."""
        return all(c.done or c.gave_up for c in self.children if c.name.startswith(prefix))

    def lost(self, name: str) -> bool:
        """Whether the child of that name was given up."""
        return any(c.gave_up for c in self.children if c.name == name)

    def stop(self, prefix: str = "", grace_s: float = 5.0) -> bool:
        """Send SIGTERM to the children named ``prefix...``, last first, and wait for each.

        Returns whether all of them ended well within ``grace_s`` seconds in all; who did not end
        is killed. Whoever has work that must not be cut off handles SIGTERM as long as it has. One
        that dies of it had not begun or was done, and ends as well as one that ends with 0.
        """
        chosen = [c for c in reversed(self.children) if c.name.startswith(prefix)]
        for child in chosen:
            if child.alive and child.process:
                child.process.send_signal(signal.SIGTERM)
        end, clean = time.monotonic() + grace_s, True
        for child in chosen:
            if child.process is None:
                continue
            try:
                code = child.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                code = child.process.wait()
            if code not in {0, -signal.SIGTERM}:
                clean = False
                self._note(f"{child.name} ended with {code}: {child.last_words()}")
            child.process, child.done = None, True
        return clean


def command(*words: str) -> list[str]:
    """Command line of an ``ffb`` subcommand in this very Python."""
    return [sys.executable, "-m", "ffb.cli", *words]
