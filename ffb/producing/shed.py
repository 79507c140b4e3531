"""Which shots a producer gives up when the aggregator cannot keep pace.

Whole shots are shed, and which ones must have nothing to do with what they hold: a rule such as
"every second one" would pick all shots of one light. Shots are therefore counted by stratum, that
is by light and step; of every ``m`` shots in a row of a stratum one is kept, and a hash of the
first one's timestamp says which. Each shot so has the same chance of 1/m, every light and step
keeps the same share, and 1/kept is the weight that makes sums right again. ``m`` is a power of
two that grows while the window of unacknowledged messages fills.
"""

from __future__ import annotations

from typing import NamedTuple

from ffb.health import Rate

_64 = (1 << 64) - 1

#: At most one shot of so many (as a power of two) is kept, before none is.
LEVELS = 6


def splitmix64(x: int) -> int:
    """Scramble 64 bits (Steele, Lea and Flood, OOPSLA 2014): each of them depends on all."""
    x = (x + 0x9E37_79B9_7F4A_7C15) & _64
    x = ((x ^ x >> 30) * 0xBF58_476D_1CE4_E5B9) & _64
    x = ((x ^ x >> 27) * 0x94D0_49BB_1331_11EB) & _64
    return x ^ x >> 31


class Stratum(NamedTuple):
    """Shots of one light and step; states of the lights are 1, 0 or -1 for unknown."""

    xray: int
    laser: int
    step: int


class Shedder:
    """Decides shot by shot, and counts what it decided.

    ``offered`` and ``kept`` count shots of the run by (x-ray, laser). ``level`` is the power of
    two of which one shot is kept.
    """

    def __init__(self) -> None:
        self.level = 0
        self.offered: dict[tuple[int, int], int] = {}
        self.kept: dict[tuple[int, int], int] = {}
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._step = -1
        self._rates = Rate(), Rate()

    def keep(self, timestamp: int, stratum: Stratum, fill: float, room: bool) -> float:
        """Fraction of shots kept just now if this one is, 0 if it is shed.

        ``fill`` is how full the window is, 1 is full; without ``room`` no shot is kept.
        """
        light = stratum[:2]
        if stratum.step != self._step:  # shots of another step are another stratum
            self._step = stratum.step
            self._blocks.clear()
        self.offered[light] = self.offered.get(light, 0) + 1
        self._adapt(fill)
        if not (room and self._chosen(timestamp, light)):
            return 0.0
        self.kept[light] = self.kept.get(light, 0) + 1
        return 0.5**self.level

    def fraction(self, now: int) -> float:
        """Fraction of shots kept over the last seconds; ``now`` in ns."""
        offered, kept = (
            rate(sum(counts.values()), now)
            for rate, counts in zip(self._rates, (self.offered, self.kept), strict=True)
        )
        return kept / offered if offered else 1.0

    def _adapt(self, fill: float) -> None:
        """One level up when the room left has halved again, down when that is long past.

        Half of the window is for the ordinary delay of commits: until then nothing is shed.
        """
        if self.level < LEVELS and fill >= _threshold(self.level):
            self.level += 1
        elif self.level and fill < _threshold(self.level - 1) / 2:
            self.level -= 1
        else:
            return
        self._blocks.clear()

    def _chosen(self, timestamp: int, light: tuple[int, int]) -> bool:
        if not self.level:
            return True
        block = self._blocks.get(light)
        if block is None:
            salt = (light[0] + 1) * 3 + light[1] + 1
            place = splitmix64(timestamp ^ salt << 56) >> (64 - self.level)
            block = self._blocks[light] = _Block(place)
        here = block.next
        block.next += 1
        if block.next == 1 << self.level:
            del self._blocks[light]
        return here == block.place


class _Block:
    """Shots of a stratum of which one is kept: that at ``place``."""

    __slots__ = ("next", "place")

    def __init__(self, place: int) -> None:
        self.next, self.place = 0, place


def _threshold(level: int) -> float:
    """How full the window may be before one shot less in two is kept than at ``level``."""
    return 1.0 - 0.5 ** (level + 1)
