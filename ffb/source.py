"""What every source offers: runs, one after the other, and the shots of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from ffb.shot import Field, Input, Item


@dataclass(frozen=True)
class RunInfo:
    """Identity of a run; ``began`` is the timestamp of BeginRun (psana's stamp)."""

    exp: str
    run: int
    began: int = 0


@dataclass(frozen=True)
class Constants:
    """What calibration and geometry know about one area detector; ``None`` where unknown.

    ``dettype`` is psana's detector type (``"jungfrau"``, ``"epix10ka"``, ...). Shapes: pedestals,
    gain, offset and rms (gain ranges, segments, rows, columns) float32, gain in ADU/keV, rms of the
    dark in ADU; status the same, an integer, nonzero is bad, and status_extra, what psana found out
    of pixels beside their darks; pixel_mask (segments, rows, columns) an integer, 0 is bad, a mask
    that somebody has put into the store; config (segments, rows, columns) uint8, the pixel
    configuration bits of an epix10ka; xyz (3, segments, rows, columns) float64, pixel centres in
    micrometres in the laboratory frame of psana's geometry; corner the least x and y of the whole
    detector's, whatever part of it is read out. ``ids`` names each constant so that
    it can be found again, ``since`` tells when it was saved or came into the store [ns since 1970],
    where that is known; ``origin`` says where they come from; ``segments`` are the DAQ's numbers of
    the segments read out, in the order of the arrays.
    """

    detector: str
    dettype: str
    shape: tuple[int, int, int]
    pedestals: NDArray[Any] | None = None
    gain: NDArray[Any] | None = None
    offset: NDArray[Any] | None = None
    status: NDArray[Any] | None = None
    status_extra: NDArray[Any] | None = None
    pixel_mask: NDArray[Any] | None = None
    rms: NDArray[Any] | None = None
    config: NDArray[Any] | None = None
    xyz: NDArray[Any] | None = None
    corner: tuple[float, float] | None = None
    origin: str = "none"
    ids: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    segments: tuple[int, ...] = ()


class Run(Protocol):
    """A run being read. Iterate it once; it ends with the run or with the stream."""

    @property
    def info(self) -> RunInfo:
        """Identity of the run."""
        ...

    @property
    def fields(self) -> Mapping[Field, str]:
        """Every field this run offers, with a word on its type, for ``ffb detnames`` and errors."""
        ...

    @property
    def motors(self) -> tuple[str, ...]:
        """Names of the values each step carries (``BeginStep.values``)."""
        ...

    def bind(
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """Declare the inputs wanted, by short name; to be called once, before iterating.

        ``shapes`` holds shapes the configuration states itself, ``rooms`` how many entries lists,
        or bytes texts, may have: each comes with a second input, :func:`ffb.shot.length_of` it,
        that counts them. Returns the inputs that the run
        can deliver, and for each other one a sentence that says why not, with the nearest name.
        Shapes that the configuration of the detector does not tell are learnt from the first
        shots, which are delivered all the same. Those of ``spare`` inputs, that one can do without,
        only where half of the very first shots have them: so will all producers of the run.
        """
        ...

    def constants(self, detector: str, geometry: str = "", store: bool = True) -> Constants:
        """Calibration constants and geometry of an area detector for this run.

        ``geometry`` names a file to take the geometry from instead of the store's. With ``store``
        false the store is not asked: files give the constants, and only what the run itself and
        the detector's type tell is wanted (configuration bits, default geometry).
        Raises ``LookupError`` with a sentence on what was tried where nothing can be had; a
        detector that simply has no pedestals is not an error.
        """
        ...

    def __iter__(self) -> Iterator[Item]:
        """Shots and steps in the order of their arrival, and :class:`Idle` when nothing comes."""
        ...

    @property
    def ended(self) -> str:
        """Why iteration stopped: ``"end of run"``, or what happened instead; ``""`` while on."""
        ...

    @property
    def notes(self) -> list[str]:
        """Sentences for the log and the file: fallbacks taken, shapes learnt, defects met."""
        ...


class Source(Protocol):
    """A stream of runs. ``stop`` may be called from a signal handler or another thread."""

    @property
    def live(self) -> bool:
        """Whether shots that are not taken in time are lost to us; files wait."""
        ...

    def runs(self) -> Iterator[Run]:
        """Yield one run after the other; wait for the first; return when the stream is over."""
        ...

    def stop(self) -> None:
        """Make iteration end soon, as if the stream were over."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@runtime_checkable
class Taking(Protocol):
    """A source that takes shots of a run before they are asked for, and cannot give them again.

    It calls ``note`` with the timestamp of each before anybody else may think that it is done with,
    so that whoever keeps the books knows of it, should the process end before it is delivered.
    """

    note: Callable[[int], None]
