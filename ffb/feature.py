"""What reducers take and give: frames by their number of axes, and features with their meaning.

Exports :class:`Feature`, :class:`Axis`, the kinds of frames, and :func:`features_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray


class Rank(NamedTuple):
    """Number of axes of an input's frame, and what it is where that does not tell."""

    ndim: int
    what: str = ""


#: A frame without axes: a number per shot.
Value: TypeAlias = Annotated[Any, Rank(0)]
#: A frame with one axis.
Waveform: TypeAlias = Annotated[NDArray[Any], Rank(1)]
#: A frame with two axes, rows and columns.
Image: TypeAlias = Annotated[NDArray[Any], Rank(2)]
#: A feature with axes; ``Feature.dims`` names them.
Vector: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Feature:
    """What one output means: unit (``"1"`` if it has none), one-line doc, names of its axes.

    In ``unit``, ``@`` stands for the unit of the input: ``"@ ns"`` of volts is ``"V ns"``.
    ``dtype`` is needed for features with axes; ``float``, ``int`` and ``bool`` bring their own.
    ``when`` names a boolean parameter, or a property of the parameters whose docstring says which:
    the feature exists only where that is true. ``length`` names the feature, an ``int``, that
    counts the entries of a *list*: along its first axis, which is as long as the reducer has room,
    the places that are not used hold NaN, or 0 in whole numbers.
    """

    unit: str
    doc: str = ""
    dims: tuple[str, ...] = ()
    dtype: str = ""
    when: str = ""
    length: str = ""


class Axis(NamedTuple):
    """Coordinates along an axis of features: ``values`` (n,) in ``unit``, ``"@"`` the input's."""

    values: NDArray[Any]
    unit: str


_SCALARS = {float: "<f8", int: "<i8", bool: "|b1"}


def features_of(name: str, features: Any) -> dict[str, tuple[str, Feature]]:
    """Read dtype and meaning of every feature off a NamedTuple of ``Annotated`` types.

    Raises ``TypeError`` that names the feature and what it lacks.
    """
    if not (isinstance(features, type) and hasattr(features, "_fields")):
        raise TypeError(f"{name}: must return a NamedTuple of features, not {features!r}")
    out = {}
    for f, hint in get_type_hints(features, include_extras=True).items():
        where = f"{name}.{f}"
        if f in {"index", "count", "present"}:
            raise TypeError(f"{where}: the name is taken; call the feature something else")
        base, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        meta = next((a for a in notes if isinstance(a, Feature)), None)
        if meta is None or not meta.unit:
            raise TypeError(f'{where}: has no unit; write Annotated[..., Feature("V ns")] or "1"')
        if base in _SCALARS and meta.dims:
            raise TypeError(f"{where}: a {base.__name__} has no dims")
        if base not in _SCALARS and not (meta.dims and meta.dtype):
            raise TypeError(f"{where}: a feature with axes needs dims and dtype")
        dtype = np.dtype(meta.dtype or _SCALARS[base]).newbyteorder("<").str
        out[f] = dtype, meta
    for f, (_, meta) in out.items():
        if meta.length and (not meta.dims or out.get(meta.length, ("",))[0] != _SCALARS[int]):
            raise TypeError(
                f"{name}.{f}: length={meta.length!r} must name an int among the features, and"
                " counts along the first of dims"
            )
    return out
