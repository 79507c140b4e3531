"""Sums of frames as a reader has them: ``run.sums["jungfrau_calib"].mean()``.

    run.sums                                   # what there is, with how many shots
    run.sums["jungfrau_calib_laser_on"][...]   # the sum, float64
    run.sums["jungfrau_calib"].variance()      # of every pixel over shots, from its square

While a run grows they are folded from what producers have sent so far, and are up to
``batch.sums_s`` seconds behind its rows; a merged file has them as datasets in ``Sums/``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb.reading.parts import Part
from ffb.sums.datasets import TELLING, Dataset, datasets, frames, rows_of
from ffb.sums.log import Folder
from ffb.sums.piece import Fates
from ffb.sums.words import What, what_of


@dataclass(frozen=True)
class FrameSum:
    """A sum over ``shots`` shots, of ``rows`` rows that the run has in this state of the lights.

    ``missing`` more had no frame, ``excluded`` ones were not to be added because of ``where``, and
    of ``unknown`` ones that could not be told; what then still lacks, a killed producer had not
    sent. With ``steps`` these are arrays, one number a step, and the first axis of the sum goes
    through them.
    ``dims`` names the axes, ``dtype`` is float64 or int64.
    ``counted`` and ``squared`` name the sums of its counts and of its squares, ``""`` for none.
    """

    name: str
    what: What
    unit: str
    doc: str
    light: str
    steps: tuple[int, ...] | None
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    form: str
    shots: Any
    missing: Any
    excluded: Any
    unknown: Any
    rows: Any
    where: str
    counted: str
    squared: str
    read: Callable[[str, Any], NDArray[Any]]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""
        return np.dtype(self.what.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """The sum, or a part of it, as numpy selects one."""
        return self.read(self.name, key)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values went into each pixel, of the sum's shape."""
        if self.counted:
            return self.read(self.counted, ...)
        shots = np.asarray(self.shots, np.int64)
        frame = (1,) * (len(self.shape) - shots.ndim)
        return np.broadcast_to(shots.reshape(*shots.shape, *frame), self.shape)

    def mean(self) -> NDArray[np.float64]:
        """Mean of every pixel over its shots; NaN where there was none. In the pixel's unit."""
        if self.what.kind not in {"sum", "nhits"}:
            raise TypeError(
                f"{self.name}: the mean of {self.what.kind} has no meaning; see its sum"
            )
        return _ratio(self[...], self.counts)

    def variance(self, ddof: int = 1) -> NDArray[np.float64]:
        """Variance of every pixel over its shots, in the pixel's unit squared.

        Needs the sum of squares beside it. Float64 leaves (mean / sigma)^2 * 1e-16 of relative
        error, 1e-10 where the noise is a thousandth of the signal. NaN for ``ddof`` shots or fewer.
        """
        if self.what.kind != "sum":
            raise TypeError(f"{self.name}: ask the sum itself for its variance")
        if not self.squared:
            raise KeyError(f"{self.name}: its squares were not summed; add them to what")
        squares = self.read(self.squared, ...)
        n = self.counts
        centred = squares - self[...] * _ratio(self[...], n)
        return _ratio(np.maximum(centred, 0.0), np.maximum(n - ddof, 0))

    def std(self, ddof: int = 1) -> NDArray[np.float64]:
        """Square root of the variance."""
        return np.sqrt(self.variance(ddof))


def _ratio(a: NDArray[Any], n: NDArray[Any]) -> NDArray[np.float64]:
    out = np.full(a.shape, np.nan)
    np.divide(a, n, out=out, where=n > 0)
    return out


class FrameSums(Mapping[str, FrameSum]):
    """All sums of a run by name."""

    def __init__(self, sums: Mapping[str, FrameSum]) -> None:
        self._sums = dict(sums)

    def __getitem__(self, name: str) -> FrameSum:
        if name in self._sums:
            return self._sums[name]
        near = difflib.get_close_matches(name, self._sums, 3, 0.4)
        hint = f"near it: {', '.join(near)}" if near else f"there are {len(self)}, see run.sums"
        raise KeyError(f"no sum {name!r}; {hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)

    def __repr__(self) -> str:
        return "\n".join(f"{k}  {told(s)}" for k, s in self.items()) or "no sums"


def told(sum_: FrameSum) -> str:
    """``n of m shots where x``, and what became of the others."""
    shots, rows = int(np.sum(sum_.shots)), int(np.sum(sum_.rows))
    text = f"{shots:,} of {rows:,} shots" + (f" where {sum_.where}" if sum_.where else "")
    others = {
        "not": int(np.sum(sum_.excluded)),
        "unknown": int(np.sum(sum_.unknown)),
        "had no frame": int(np.sum(sum_.missing)),
    }
    others["are not in it"] = max(0, rows - shots - sum(others.values()))
    return ", ".join([text, *(f"{n:,} {what}" for what, n in others.items() if n)])


def of_folder(folder: Folder, column: Callable[[str], NDArray[Any]]) -> FrameSums:
    """Sums of a run in the making; ``column`` reads one of its columns."""
    known = datasets(folder)
    columns = {name: column(name) for name in TELLING.values()} if known else {}

    def read(name: str, key: Any) -> NDArray[Any]:
        try:
            made = [*frames(folder, known[name])]
        except FileNotFoundError as e:
            raise OSError(f"{name} is in a merged file by now: take it from run.sums again") from e
        return np.asarray((made[0] if known[name].steps is None else np.stack(made))[key])

    def made(d: Dataset) -> FrameSum:
        told = d.attributes | {"rows": rows_of(d, columns)}
        if d.steps is None:
            told["rows"] = told["rows"][0]
        return _of(d.name, (d.shape if d.steps is None else (len(d.steps), *d.shape)), told, read)

    return FrameSums({name: made(d) for name, d in known.items()})


def of_file(part: Part) -> FrameSums:
    """Sums in a merged file."""
    return FrameSums({n: _of(n, shape, attrs, part.sum) for n, (shape, attrs) in part.sums.items()})


def _of(
    name: str,
    shape: tuple[int, ...],
    told: Mapping[str, Any],
    read: Callable[[str, Any], NDArray[Any]],
) -> FrameSum:
    steps = tuple(np.asarray(told["steps"]).tolist()) if "steps" in told else None
    return FrameSum(
        name=name,
        what=what_of(str(told["what"])),
        unit=str(told["unit"]),
        doc=str(told["doc"]),
        light=str(told["light"]),
        steps=steps,
        shape=shape,
        dims=tuple(map(str, told["dims"])),
        form=str(told["form"]),
        where=str(told["where"]),
        **{f: np.asarray(told[f])[()] for f in Fates._fields},
        rows=np.asarray(told["rows"])[()],
        counted=str(told["counts"]),
        squared=str(told["squares"]),
        read=read,
    )
