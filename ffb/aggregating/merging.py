"""Runs that have ended become plain files: small ones soon, others beside what comes next."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ffb.reading.contents import FOLDER

log = logging.getLogger(__name__)

#: Runs of no more bytes are merged while the aggregator waits: that is a moment, even on a busy
#: machine, so that one which was told to stop does it, too.
SMALL = 16 << 20

#: Seconds between two looks at merges that are waited for.
LOOK_S = 0.02

#: Seconds for which the segments of a merged run stay, for those who have its master open.
LINGER_S = 5.0


class Merging:
    """Merges the runs it is called with; what fails stays as it is, can be read, and is told.

    ``merge`` does it in this process, ``child`` is the command of a program that does it with the
    path after it, and says on stdout what it did or why it did not. Neither removes the segments:
    that does ``clear``, some time later. ``left`` are the runs that are not merged because we were
    told to stop.
    """

    def __init__(
        self,
        merge: Callable[[Path], object],
        clear: Callable[[Path], object],
        child: Sequence[str],
        small: int = SMALL,
        linger_s: float = LINGER_S,
    ) -> None:
        self._merge, self._clear, self._child = merge, clear, child
        self._small, self._linger_s = small, linger_s
        self._due: list[Path] = []
        self._merged: dict[Path, float] = {}
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._failed: dict[Path, str] = {}
        self._leaving = False
        self.left: list[Path] = []

    def __call__(self, path: Path) -> None:
        """Merge the run at ``path``, which has ended, soon: producers learn first that it has."""
        folder = path.with_name(f"{path.stem}{FOLDER}")
        if sum(p.stat().st_size for p in folder.glob("*")) > self._small:
            self.start([path])
        else:
            self._due.append(path)

    def start(self, paths: Iterable[Path]) -> None:
        """Merge runs in processes of their own."""
        for path in paths:
            if self._leaving:
                self._leave(path)
            elif path not in self._children:
                log.info("file=%s is merged in a process of its own", path)
                self._children[path] = subprocess.Popen(  # noqa: S603  our own command line
                    [*self._child, str(path)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # a Ctrl-C at the terminal is ours alone
                )

    def leave(self) -> None:
        """Leave large runs for later: stop what is under way, begin nothing; for signal handlers.

        It would hold up who still has rows to commit. The next start, or `ffb merge`, begins it
        anew.
        """
        self._leaving = True
        for child in [*self._children.values()]:
            child.kill()

    @property
    def alarms(self) -> list[str]:
        """What failed, in sentences."""
        return [*self._failed.values()]

    def poll(self) -> None:
        """Merge what is due, look after what is under way, clear up what is done."""
        self._do_due()
        for path, child in [*self._children.items()]:
            if child.poll() is not None:
                self._reap(path)
        self._tidy(time.monotonic() - self._linger_s)

    def close(self) -> None:
        """Wait for merges, however long they take, until they are to be left."""
        self.poll()
        while self._children:
            if self._leaving:  # also what was being started when we were told
                self.leave()
            time.sleep(LOOK_S)
            self.poll()
        self._tidy(time.monotonic())

    def _do_due(self) -> None:
        while self._due:
            path = self._due.pop()
            self._failed.pop(path, None)
            self._do(self._merge, path)
            if path not in self._failed:
                self._merged[path] = time.monotonic()

    def _tidy(self, before: float) -> None:
        """Remove the segments of runs that were merged ``before`` a time."""
        for path in [path for path, when in self._merged.items() if when <= before]:
            del self._merged[path]
            self._do(self._clear, path)

    def _do(self, action: Callable[[Path], object], path: Path) -> None:
        try:
            action(path)
        except (OSError, ValueError) as e:
            self._fail(path, str(e))

    def _reap(self, path: Path) -> None:
        child = self._children.pop(path)
        said = child.communicate()[0].decode(errors="replace").strip()
        if child.returncode == 0:
            self._merged[path] = time.monotonic()
            log.info("%s", said)
        elif self._leaving and child.returncode == -signal.SIGKILL:
            self._leave(path)
        else:
            self._fail(path, said or f"its process ended with {child.returncode}")

    def _leave(self, path: Path) -> None:
        self.left.append(path)
        log.warning("file=%s is not merged yet: the next start does it", path)

    def _fail(self, path: Path, why: str) -> None:
        self._failed[path] = f"{path.name} is left with its segments, and can be read: {why}"
        log.error("file=%s is not merged: %s", path, why)
