"""Declare reducers: typed functions from one shot's frames to features.

A *whole-shot* reducer is one function of whole frames::

    class Gate(NamedTuple):
        start: int
        stop: int
        dt: float  # ns per sample

    class Integral(NamedTuple):
        area: Annotated[float, Feature("V ns")]

    @reducer(version=1)
    def integral(wf: Waveform, gate: Gate) -> Integral:
        return Integral(wf[gate.start : gate.stop].sum() * gate.dt)

A *tile* reducer sees an area detector row by row, calibrated, and keeps its sums in a state; all
tile reducers of a detector share one pass over its raw pixels (see :func:`tile_reducer`).

What this module declares, :mod:`ffb.loops.fuse` compiles and :mod:`ffb.plan` binds to a run.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import NDArray

from ffb.feature import Axis, Feature, Rank, features_of
from ffb.shot import Input

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class Window(NamedTuple):
    """Tiles ``first`` to ``last`` and their columns ``start`` to ``stop``, all half-open.

    A tile reducer whose constants have one as ``window`` is called for these tiles only.
    """

    first: int
    last: int
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.last - self.first, self.stop - self.start


class Tile(NamedTuple):
    """One detector row of one segment, calibrated, as ``accumulate`` receives it.

    ``values`` (columns,) float32 hold exactly 0 where the mask is bad and NaN where a pixel is
    bad in this shot only, none infinite; ``valid`` (columns,) uint8 is the mask, 1 is good; ``bad``
    counts the NaN among the valid pixels; ``number`` is segment * rows + row; ``first`` is the
    index of the first pixel in the flattened detector.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.uint8]
    bad: int
    number: int
    first: int


class Area(NamedTuple):
    """The area detector a tile reducer is prepared for.

    ``shape`` is (segments, rows, columns); ``mask`` (*shape) bool is true for good pixels: status,
    user and edges together; ``xyz`` (3, *shape) are pixel centres in micrometres, ``None`` without
    a geometry; ``unit`` is that of a calibrated pixel; ``corner`` the least x and y of the whole
    detector, where only a part of it is read out; ``noise`` (*shape) float32 the rms of pixels in
    the dark, in ``unit``, in their first gain range, ``None`` if it is not known.
    """

    detector: str
    shape: tuple[int, int, int]
    mask: NDArray[np.bool_]
    xyz: NDArray[np.float64] | None
    unit: str
    corner: tuple[float, float] | None = None
    noise: NDArray[np.float32] | None = None


class Calibration(Protocol):
    """Raw to calibrated, a tile at a time; made once per run by plain Python.

    ``tile(raw_row, first, constants, values) -> bad`` is a numba function: it fills ``values``
    (columns,) float32 from one detector row and returns how many valid pixels became NaN; it
    keeps what :class:`Tile` promises. Where pixels of several rows have to be seen together,
    ``height`` is their number, which divides a segment's, and the function is
    ``tile(raw_rows, first, constants, values, bad)``, with ``values`` (height * columns,) and
    ``bad`` (height,) int64 to be filled; else ``height`` is 0. ``constants`` is a NamedTuple of
    arrays and numbers, ``dtype`` that of a raw pixel, ``mask`` (segments, rows, columns) true for
    good pixels.
    """

    @property
    def constants(self) -> Any:
        """What ``tile`` needs: a NamedTuple of arrays and numbers."""
        ...

    @property
    def tile(self) -> Any:
        """The numba function that calibrates one row."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True for good pixels, (segments, rows, columns)."""
        ...

    @property
    def unit(self) -> str:
        """Unit of a calibrated pixel: ``"keV"`` or ``"ADU"``."""
        ...

    @property
    def dtype(self) -> str:
        """Numpy dtype of a raw pixel."""
        ...

    @property
    def height(self) -> int:
        """Rows that ``tile`` takes at once, 0 for row by row."""
        ...

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many corrections could not be made so far, by what they are and why."""
        ...

    @property
    def lend(self) -> Any:
        """The numba function for rows that may be right as they came, or ``None``.

        ``lend(raw_row, first, constants, values) -> (row, bad)`` gives the row itself, or
        ``values``, filled as ``tile`` fills them.
        """
        ...


_PARAMETERS = (float, int, bool, str, Path)


def _check_parameters(name: str, params: Any) -> None:
    if not (isinstance(params, type) and hasattr(params, "_fields")):
        raise TypeError(f"{name}: parameters must be a NamedTuple, not {params!r}")
    for field, hint in get_type_hints(params).items():
        union = get_origin(hint) in (Union, UnionType)
        for t in get_args(hint) if union else (hint,):
            parts = get_args(t) if get_origin(t) is tuple else (t,)
            if any(p not in (*_PARAMETERS, type(None), ...) for p in parts):
                raise TypeError(
                    f"{name}: parameter {field} is {hint}; parameters are float, int, bool, str,"
                    " Path, tuples of them, or these or None"
                )


def located(value: Any, locate: Callable[[str], Path]) -> Any:
    """Parameters with their paths as ``locate`` sees them: from the configuration's folder."""
    if isinstance(value, Path):
        return locate(str(value))
    if isinstance(value, tuple):
        parts = [located(v, locate) for v in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    return value


class _Declared:
    """What both shapes of reducer have in common: name, version, source, declared types.

    ``meant`` says of inputs what they are where their rank does not.
    """

    inputs: Mapping[str, int]
    params: Any
    outputs: Mapping[str, tuple[str, Feature]]
    _axes: Callable[[Any, Any], Mapping[str, Axis]] | None = None

    def __init__(self, anchor: Any, version: int) -> None:
        self.name, self.version = anchor.__name__, version
        self.module: str = anchor.__module__
        self.doc = inspect.getdoc(anchor) or inspect.getdoc(inspect.getmodule(anchor)) or ""
        self._file = inspect.getfile(anchor)
        self.meant: dict[str, str] = {}

    @cached_property
    def source(self) -> str:
        """Text of the file that holds the reducer, for provenance."""
        with open(self._file, encoding="utf-8") as f:
            return f.read()

    @property
    def hash(self) -> str:
        """SHA-256 of ``source``."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def selected(self, params: Any) -> dict[str, tuple[str, Feature]]:
        """Features that exist for these parameters (``Feature.when``)."""
        return {
            f: (dtype, meta)
            for f, (dtype, meta) in self.outputs.items()
            if not meta.when or getattr(params, meta.when)
        }

    def coordinates(self, params: Any, constants: Any) -> Mapping[str, Axis]:
        """Coordinates of the axes of its features that have any, by the name in ``dims``."""
        return {} if self._axes is None else self._axes(params, constants)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} version {self.version}>"


class Reducer(_Declared, Generic[P, R]):
    """A whole-shot reducer; calling it runs the plain Python function on one shot's frames.

    ``inputs`` maps each annotated argument to the rank of its frame; ``params`` is the type of
    the parameters, ``None`` without; ``outputs`` maps each feature to dtype and :class:`Feature`.
    """

    def __init__(self, fn: Callable[P, R], version: int) -> None:
        super().__init__(fn, version)
        self.fn = fn
        hints = get_type_hints(fn, include_extras=True)
        self.outputs = features_of(self.name, hints.pop("return", None))
        self.inputs: dict[str, int] = {}
        settings: list[Any] = []
        for arg, hint in hints.items():
            ranks = [a for a in get_args(hint)[1:] if isinstance(a, Rank)]
            if ranks and settings:
                raise TypeError(f"{self.name}: input {arg} must come before the parameters")
            if ranks:
                self.inputs[arg] = ranks[0].ndim
                self.meant[arg] = ranks[0].what
            else:
                settings.append(hint)
        if not self.inputs or len(settings) > 2:
            raise TypeError(
                f"{self.name}: arguments are inputs (Value, Waveform, Image), then at most one"
                " NamedTuple of parameters and one of memory"
            )
        self.params = settings[0] if settings else None
        self.remembers = len(settings) == 2
        self._prepare: Callable[[Any, Mapping[str, Input]], Any] | None = None
        self._memory: Callable[[Any], Any] | None = None

    def prepare(self, fn: Callable[..., C]) -> Callable[..., C]:
        """Register ``fn(params, inputs) -> constants``, plain Python, run once per epoch.

        ``inputs`` maps each argument to what the run delivers (:class:`ffb.shot.Input`). The
        kernel then receives the constants, a NamedTuple, in place of the parameters; they may
        hold arrays. Raise ``ValueError`` for parameters that do not fit the inputs.
        """
        hint = get_type_hints(fn).get("params")
        if hint is None:
            raise TypeError(f"{self.name}.prepare: annotate its first argument, named 'params'")
        self.params, self._prepare = hint, fn
        return fn

    def memory(self, fn: Callable[[Any], C]) -> Callable[[Any], C]:
        """Register ``fn(constants) -> memory``, plain Python, run once per epoch.

        The kernel receives the memory, a NamedTuple of arrays, as its last argument, and finds in
        it what it left there at the shot before: the one of this producer, so features depend on
        how shots are dealt out. For references that converge, and nothing else.
        """
        self._memory = fn
        return fn

    def remembered(self, constants: Any) -> Any:
        """Return a fresh memory, an empty tuple for reducers without."""
        if not self.remembers:
            return ()
        if self._memory is None:
            raise TypeError(f"{self.name}: takes a memory; register what makes one with .memory")
        return self._memory(constants)

    def axes(
        self, fn: Callable[[Any, Any], Mapping[str, Axis]]
    ) -> Callable[[Any, Any], Mapping[str, Axis]]:
        """Register ``fn(params, constants) -> {dim: Axis}``, plain Python, once per run."""
        self._axes = fn
        return fn

    def constants(self, params: Any, inputs: Mapping[str, Input]) -> Any:
        """Return what the kernel receives after the frames."""
        if self.params is not None:
            _check_parameters(self.name, self.params)
        return params if self._prepare is None else self._prepare(params, inputs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Reduce one shot in plain Python."""
        return self.fn(*args, **kwargs)


class TileReducer(_Declared):
    """A tile reducer; ``functions`` holds its five functions by name. See :func:`tile_reducer`."""

    FUNCTIONS = ("prepare", "allocate", "start", "accumulate", "finish")

    def __init__(self, cls: type, version: int) -> None:
        super().__init__(cls, version)
        self.functions: dict[str, Callable[..., Any]] = {}
        for f in self.FUNCTIONS:
            fn = inspect.getattr_static(cls, f, None)
            if fn is None:
                raise TypeError(f"{self.name}: has no {f}(); needed are {self.FUNCTIONS}")
            self.functions[f] = fn.__func__ if isinstance(fn, staticmethod) else fn
        self._axes = getattr(cls, "axes", None)
        self.inputs = {"image": 3}
        self.params = get_type_hints(self.functions["prepare"]).get("params")
        _check_parameters(self.name, self.params)
        hints = get_type_hints(self.functions["finish"], include_extras=True)
        self.outputs = features_of(self.name, hints.get("return"))

    def prepare(self, params: Any, area: Area) -> Any:
        """Constants for these parameters; raises ``ValueError`` listing what does not fit."""
        return self.functions["prepare"](params, area)

    def allocate(self, constants: Any) -> Any:
        """Return a fresh state, a NamedTuple of arrays."""
        return self.functions["allocate"](constants)


def reducer(*, version: int) -> Callable[[Callable[P, R]], Reducer[P, R]]:
    """Make a whole-shot reducer of a function; raise ``version`` when its numbers change."""

    def wrap(fn: Callable[P, R]) -> Reducer[P, R]:
        return Reducer(fn, version)

    return wrap


def window_of(constants: Any) -> Window | None:
    """The window of a tile reducer with these constants; ``None`` if it takes every tile."""
    window = getattr(constants, "window", None)
    return window if isinstance(window, Window) else None


def tile_reducer(*, version: int) -> Callable[[type], TileReducer]:
    """Make a tile reducer of a class that is a namespace of five static methods.

    - ``prepare(params: Params, area: Area) -> constants``: plain Python, once per epoch; raises
      ``ValueError`` listing every parameter that does not fit the detector.
    - ``allocate(constants) -> state``: plain Python, once; a NamedTuple of arrays.
    - ``start(constants, state)``: compiled; bring the state to zero before a shot.
    - ``accumulate(tile: Tile, constants, state)``: compiled; called for every row in order, or, if
      ``constants.window`` is a :class:`Window`, for those in it.
    - ``finish(constants, state) -> Features``: compiled; scalars and arrays, which are copied
      before the next shot.

    A sixth is optional: ``axes(params, constants) -> {dim: Axis}``, plain Python, once per run,
    gives the coordinates of axes that features name in ``Feature.dims``.

    Constants and state are NamedTuples; the compiled functions check no bounds, so ``prepare``
    must. The same functions run as plain Python under ``NUMBA_DISABLE_JIT=1``.
    """

    def wrap(cls: type) -> TileReducer:
        return TileReducer(cls, version)

    return wrap
