"""Tables of the file that ask for sums over shots."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ffb.configuration.settings import List, Table
from ffb.sums.words import COUNTS, LIGHTS, What, what_of

#: A condition that is longer is better named under [filters].
LETTERS = 200


def _known(name: str) -> str:
    if what_of(name).of == COUNTS:
        raise ValueError(f"{name!r}: every sum has its counts beside it; leave it out")
    return name


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"{', '.join(twice)}: named twice")
    return names


class SumConfig(Table):
    """Frames of an area detector, waveforms, or other arrays, added up over the shots of a run.

    The file has them as `Sums/<name>_<what>`, with the number of values in each pixel beside them.
    """

    input: str = ""
    """Input with the frames, or an array that a reducer makes, such as "azav/intensity"; without
    it, the input that has the sum's own name."""
    what: Annotated[
        List[Annotated[str, AfterValidator(_known)]], Field(min_length=1), AfterValidator(_once)
    ] = ("calib",)
    """What is added, by tokens: "calib", or "raw" of an area detector, then "thresADU<x>", then one
    of "square", "max", "nhits", joined by "_". Arrays that have no calibration are "calib", too."""
    light: Annotated[List[Literal["xray", "laser"]], AfterValidator(_once)] = ()
    """Lights by whose states (on, off, unknown) there are sums of their own, beside that of all."""
    per: Literal["run", "step"] = "run"
    """Whether each step of a scan has a sum of its own, too."""
    where: Annotated[str, Field(max_length=LETTERS)] = ""
    """Which shots are added: the name of a filter, or a condition like one, such as "hits.n >
    15 and tt.ampl > 0.05"; not those where that is unknown. Without it all are."""

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        squares = [w for w in self.whats if w.kind == "square"]
        sums = {(w.of, w.least) for w in self.whats if w.kind == "sum"}
        if lone := [w.name for w in squares if (w.of, w.least) not in sums]:
            plain = ", ".join(n.replace("_square", "") for n in lone)
            raise ValueError(f"what: {', '.join(lone)} says nothing without its sum; add {plain}")
        return self

    @property
    def whats(self) -> tuple[What, ...]:
        """What is added, read."""
        return tuple(what_of(n) for n in self.what)

    @property
    def lights(self) -> tuple[str, ...]:
        """Lights in the order of their labels."""
        return tuple(k for k in LIGHTS if k in self.light)
