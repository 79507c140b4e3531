"""What happens when a reducer fails: absent for that shot, counted, in the end suspended."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ffb.loops.fuse import ABSENT, LEAVE, RUN

log = logging.getLogger(__name__)

#: After so many failures without a success between them a reducer runs no more in this run.
PATIENCE = 100


class Guard:
    """Switches of the reducers that run in one compiled call.

    ``errors`` counts failures by reducer and reason, ``notes`` receives a sentence for each
    reducer that is suspended; both belong to the plan.
    """

    def __init__(self, names: Sequence[str], errors: Counter[str], notes: list[str]) -> None:
        self.names, self.errors, self.notes = tuple(names), errors, notes
        self.active: NDArray[np.uint8] = np.full(len(self.names), RUN, np.uint8)
        self._failures = [0] * len(self.names)

    def passed(self) -> None:
        """Note that all of them ran."""
        if any(self._failures):
            self._failures = [0] * len(self.names)

    def singly(self, run: Callable[[NDArray[np.uint8]], None]) -> None:
        """Run a shot again, reducer by reducer, so that one failure costs one reducer.

        ``run`` makes the compiled call with the switches it is given.
        """
        for i in range(len(self.names)):
            alone: NDArray[np.uint8] = np.full(len(self.names), LEAVE, np.uint8)
            alone[i] = self.active[i]
            try:
                run(alone)
            except Exception as e:  # whatever a reducer raises costs its features, nothing else
                alone[i] = ABSENT
                run(alone)
                self._failed(i, e)
            else:
                self._failures[i] = 0

    def _failed(self, i: int, error: Exception) -> None:
        name, reason = self.names[i], f"{type(error).__name__}: {error}"
        key = f"{name}: {reason}"
        if key not in self.errors:
            log.warning("reducers.%s failed: %s", name, reason, exc_info=error)
        self.errors[key] += 1
        self._failures[i] += 1
        if self._failures[i] == PATIENCE:
            self.active[i] = ABSENT
            self.notes.append(
                f"reducers.{name} is suspended for the rest of the run: it failed on {PATIENCE}"
                f" shots in a row, last with {reason}"
            )
            log.warning("%s", self.notes[-1])
