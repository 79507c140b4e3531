"""Runs that an earlier life of the aggregator left open, and that nobody comes back to."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ffb import reader
from ffb.reading.contents import FOLDER
from ffb.source import RunInfo

log = logging.getLogger(__name__)


class Orphans:
    """Ends runs all of whose producers had ended when their aggregator was killed.

    Those producers were told that everything is committed, so nobody announces the run again. It
    is given ``patience_s`` seconds all the same, and then ended by ``child``, a command with the
    path after it, which says on stdout what it did.
    """

    def __init__(self, patience_s: float, child: Sequence[str]) -> None:
        self._patience_s, self._child = patience_s, child
        self._due: dict[Path, tuple[RunInfo, float]] = {}
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self.alarms: list[str] = []

    def look(self, folder: Path) -> None:
        """Take note of the runs in ``folder`` that are such."""
        due = time.monotonic() + self._patience_s
        for parts in sorted(folder.glob(f"*{FOLDER}")):
            path = parts.with_suffix(".h5")
            try:
                with reader.open(path) as run:
                    books = run.counts.producers.values()
                    if not run.complete and books and all(p["ended"] for p in books):
                        self._due[path] = run.info, due
            except (OSError, ValueError) as e:  # nothing is committed, or it has to be recovered
                log.info("file=%s is left as it is: %s", path, e)

    def poll(self, busy: Collection[RunInfo]) -> None:
        """End what is due and not ``busy``: somebody has gone on with it."""
        for path, (info, due) in [*self._due.items()]:
            if info in busy:
                del self._due[path]
            elif time.monotonic() >= due:
                del self._due[path]
                self._begin(path)
        for path, child in [*self._children.items()]:
            if child.poll() is not None:
                self._reap(path)

    def finish(self, hurried: Callable[[], bool]) -> None:
        """End all now, for no producer will come any more; unless ``hurried``, then leave them."""
        if not hurried():
            for path in self._due:
                self._begin(path)
        self._due.clear()
        for path, child in [*self._children.items()]:
            while child.poll() is None and not hurried():
                time.sleep(0.02)
            if child.poll() is None:
                child.terminate()  # the next start finds the run again
            self._reap(path)

    def _begin(self, path: Path) -> None:
        log.info("file=%s was left open and is ended", path)
        self._children[path] = subprocess.Popen(  # noqa: S603  our own command line
            [*self._child, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def _reap(self, path: Path) -> None:
        child = self._children.pop(path)
        said = child.communicate()[0].decode(errors="replace").strip()
        log.info("file=%s %s", path, said)
        if child.returncode:
            self.alarms.append(f"{path.name} was left open and cannot be ended: {said}")
