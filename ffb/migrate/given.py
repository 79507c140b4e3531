"""Arguments of an analysis function, taken one by one; what is left over is told.

Exports :class:`Given`, :class:`Made` and :class:`Remark`, and what translations share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ffb.configuration.problems import nearest
from ffb.migrate.static_values import Table, Unread

#: What becomes of a mask that a function is given.
MASK = "give a .npy file as `mask` of [calibration.DET]; masks are joined there"


def only(**params: Any) -> dict[str, Any]:
    """Parameters that are given."""
    return {k: v for k, v in params.items() if v is not None}


class Remark(NamedTuple):
    """Something a person has to know: a line of the configuration, and what about it.

    ``lost`` says whether it is missing from what was made, or only to be checked.
    """

    line: int
    text: str
    lost: bool = True


class Made(NamedTuple):
    """A reducer for a detector: its name below the detector, which one, and its parameters.

    ``of`` is the column below the detector that it takes, the detector's own data if empty.
    """

    name: str
    use: str
    params: Mapping[str, Any]
    argument: str = "image"
    of: str = ""


@dataclass
class Given:
    """Keyword arguments of a detector's function, taken one by one.

    ``remarks`` collects what could not be taken, ``line`` is where they begin.
    """

    where: str
    table: Table
    line: int
    remarks: list[Remark]

    def __post_init__(self) -> None:
        self._asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """A value, or ``default`` where there is none or it is not read."""
        self._asked.add(key)
        found = self.table.get(key, default)
        if isinstance(found, Unread):
            self.lose(key, found.why, found.line)
            return default
        return found

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number; anything else is a remark."""
        found = self.get(key)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float):
            self.lose(key, f"a number was expected, not {found!r}")
            return default
        return float(found)

    def pair(self, key: str) -> list[int] | None:
        """Two whole numbers, first and behind the last."""
        found = self.get(key)
        if found is None:
            return None
        if pair(found):
            return [int(k) for k in found]
        self.lose(key, f"two whole numbers were expected, not {found!r}")
        return None

    def lose(self, key: str, why: str, line: int = 0) -> None:
        """Remark that an argument is left out."""
        at = line or self.table.lines.get(key, self.line)
        self.remarks.append(Remark(at, f"{self.where}: {key}: {why}"))

    def check(self, text: str) -> None:
        """Remark what somebody has to look at."""
        self.remarks.append(Remark(self.line, f"{self.where}: {text}", lost=False))

    def without(self, **reasons: str) -> None:
        """Arguments that have no counterpart, and why or what to do instead."""
        for key, why in reasons.items():
            found = self.table.get(key)
            if isinstance(found, Unread):
                self._asked.add(key)
                self.lose(key, f"{found.why}; {why}", found.line)
            elif self.get(key) not in (None, False):
                self.lose(key, why)

    def silently(self, *keys: str) -> None:
        """Arguments that change nothing here."""
        self._asked |= {*keys}

    def end(self) -> None:
        """Remark on arguments that nobody asked for: mistyped ones."""
        for key in self.table:
            if key not in self._asked:
                near = nearest(str(key), sorted(self._asked))
                hint = f"; {near}" if near.startswith("did") else ""
                self.lose(str(key), f"the function knows no such parameter{hint}")


def pair(value: Any) -> bool:
    """Whether a value is a range of whole numbers."""
    whole = isinstance(value, list | tuple) and len(value) == 2
    return whole and all(isinstance(k, int) and not isinstance(k, bool) for k in value)
