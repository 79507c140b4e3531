"""Regions of a detector by their outline: polygon, ellipse, ring, mask file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffb import Area
from ffb.reducers.checks import noted
from ffb.reducers.numpy_file import read


def inside_polygon(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside of a polygon; ``corners`` (n, 2) are row and column.

    By the number of edges that a ray along the row crosses (even-odd rule), so outlines may cross
    themselves; a centre exactly on an edge to lower columns is inside, on one to higher is not.
    """
    rows, cols = np.indices(shape)
    out = np.zeros(shape, np.bool_)
    for (r0, c0), (r1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        crosses = (rows < r0) != (rows < r1)
        out ^= crosses & (cols < c0 + (rows - r0) * (c1 - c0) / (r1 - r0))
    return out


def inside_ellipse(given: tuple[float, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie in an ellipse: centre row and column, half axes along them.

    A fifth number [degrees] turns it from the columns towards the rows.
    """
    row, col, height, width, *angle = given
    turn = np.radians(angle[0]) if angle else 0.0
    rows, cols = np.indices(shape)
    along = (cols - col) * np.cos(turn) + (rows - row) * np.sin(turn)
    across = (rows - row) * np.cos(turn) - (cols - col) * np.sin(turn)
    return np.asarray((across / height) ** 2 + (along / width) ** 2 <= 1.0)


def inside_ring(given: tuple[float, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie in a ring: centre row and column, inner and outer radius."""
    row, col, inner, outer = given
    rows, cols = np.indices(shape)
    radius = np.hypot(rows - row, cols - col)
    return np.asarray((radius >= inner) & (radius < outer))


def _outlines(
    area: Area,
    polygon: tuple[float, ...] | None,
    ellipse: tuple[float, ...] | None,
    ring: tuple[float, ...] | None,
) -> tuple[list[NDArray[np.bool_]], list[str]]:
    """Masks (rows, columns) of the outlines that are given, and what is wrong with them."""
    shape, out, problems = area.shape[1:], [], []
    for name, given in (("polygon", polygon), ("ellipse", ellipse), ("ring", ring)):
        if given is None:
            continue
        if not np.isfinite(given).all():
            problems.append(f"{name}: {list(given)} has numbers that are not finite")
        elif name == "polygon" and (len(given) < 6 or len(given) % 2):
            problems.append(
                f"polygon: {len(given)} numbers are no outline; give row and column of three"
                " corners or more"
            )
        elif name != "polygon" and len(given) != 4 and (name, len(given)) != ("ellipse", 5):
            what = "half height, half width, angle" if name == "ellipse" else "inner, outer radius"
            problems.append(f"{name}: {len(given)} numbers; give row, column, {what}")
        elif name == "ellipse" and not min(given[2:4]) > 0:
            problems.append(f"ellipse: half axes {list(given[2:4])} must be above 0")
        elif name == "ring" and not 0 <= given[2] < given[3]:
            problems.append(f"ring: radii {list(given[2:])} enclose nothing; inner first")
        elif name == "polygon":
            out.append(inside_polygon(np.reshape(given, (-1, 2)).astype(np.float64), shape))
        else:
            out.append((inside_ellipse if name == "ellipse" else inside_ring)(given, shape))
    return out, problems


def array_from(area: Area, path: Path, name: str) -> NDArray[Any]:
    """Array of the whole detector from a .npy file, the value of the parameter ``name``.

    ``ValueError`` says what is wrong with it.
    """
    try:
        (found,) = read(path, name)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    if np.isnan(found).any():
        raise ValueError(f"{name}: {path} holds NaN, neither in nor out; write 0 or 1")
    if found.ndim == 2 and area.shape[0] == 1:
        found = found[None]
    if found.shape != area.shape:
        raise ValueError(
            f"{name}: {path} holds an array {found.shape}; {area.detector} has {area.shape}"
        )
    return found


def region_mask(
    area: Area,
    segment: int | None,
    polygon: tuple[float, ...] | None,
    ellipse: tuple[float, ...] | None,
    ring: tuple[float, ...] | None,
    mask: Path | None,
) -> NDArray[np.bool_]:
    """Good pixels of a detector, ``area.shape``, that lie in everything that is given.

    Outlines are in pixels of one ``segment``, which has to be named where there are several.
    Raises ``ValueError`` with a line for each thing that is wrong, an empty region included.
    """
    outlines, problems = _outlines(area, polygon, ellipse, ring)
    segments = area.shape[0]
    if segment is None and segments > 1 and any(x is not None for x in (polygon, ellipse, ring)):
        problems.append(f"segment: say which of the {segments} the outline is on")
    if segment is not None and not 0 <= segment < segments:
        problems.append(f"segment: there is no {segment}; {area.detector} has {segments}")
    inside = np.array(area.mask)
    with noted(problems):
        inside &= array_from(area, mask, "mask") != 0 if mask is not None else True
    if problems:
        raise ValueError("\n".join(problems))
    for outline in outlines:
        inside &= outline
    if segment is not None:
        chosen = np.zeros((segments, 1, 1), np.bool_)
        chosen[segment] = True
        inside &= chosen
    if not inside.any() and area.mask.any():
        raise ValueError(f"region: no good pixel of {area.detector} lies in it")
    return inside
