"""Lists on their way from file segments, where they have room, into the plain file, end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import Shown
from ffb.reading.lists import Flat, flat_of, group_of, masked
from ffb.schema import Column
from ffb.writers.gather import UNIT_BYTES, Joined, Tally
from ffb.writers.growing import Growing, Packed


class Lists(NamedTuple):
    """All lists of one count: where they stand, what they are made of, how long each of them is.

    ``lengths`` (rows,) are in the order of the plain file, and no longer than there was room for.
    """

    lengths: NDArray[np.int64]
    members: tuple[tuple[Column, Flat, Joined], ...]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where the entries of each row begin, and where the last ones end: (rows + 1,)."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def tables(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Lengths and offsets by the names that they have in the file."""
        flat = self.members[0][1]
        yield from ((flat.lengths, self.lengths), (flat.offsets, self.offsets))


def lists_of(shown: Mapping[str, Shown], joined: Mapping[str, Joined]) -> list[Lists]:
    """Lists of a run whose columns are ``shown``.

    A list that changed its room with an epoch is two, see :func:`ffb.reading.contents.union`, of
    which the older one stands in a group of its own.
    """
    together: dict[tuple[str, tuple[int, ...], int], list[Column]] = {}
    for s in shown.values():
        c = s.column
        if c.length in joined and c.shape:
            together.setdefault((c.length, s.epochs, c.shape[0]), []).append(c)
    out, taken = [], {name.removesuffix("_len") for name in shown}
    for (count, epochs, room), columns in together.items():
        group = group_of(columns[0])
        while group in taken:
            group += f"_e{max(epochs, default=0)}"
        taken.add(group)
        lengths = np.clip(joined[count].all().astype(np.int64), 0, room)
        lengths[~joined[columns[0].name].held()] = 0
        members = ((c, flat_of(c, group), joined[c.name]) for c in columns)
        out.append(Lists(lengths, tuple(members)))
    return out


def write(file: h5py.File, lists: Lists, before: Callable[[int], None]) -> Tally:
    """Fill the datasets of ``lists``; ``before`` is called with the bytes that are written next."""
    made = 0
    for name, values in lists.tables:
        before(values.nbytes)
        made += _grow(Growing(file, name), [values])
    for column, flat, joined in lists.members:
        packed = Packed(file, flat.values, column.codec) if column.codec else None
        made += _grow(packed or Growing(file, flat.values), _told(_units(lists, joined), before))
    return Tally(anew=made)


def _grow(growing: Growing, pieces: Iterable[NDArray[np.generic]]) -> int:
    """Write ``pieces`` end to end; how many chunks they made."""
    for piece in pieces:
        growing.append(piece)
        growing.write(checked=False)
    return len({p.chunk for p in growing.placed})


def _told(
    units: Iterator[NDArray[np.generic]], before: Callable[[int], None]
) -> Iterator[NDArray[np.generic]]:
    for unit in units:
        before(unit.nbytes)
        yield unit


def _units(lists: Lists, joined: Joined) -> Iterator[NDArray[np.generic]]:
    """Entries of a list in the order of the plain file, so many rows at a time as fit in memory."""
    per = max(1, UNIT_BYTES // joined.row_bytes)
    for first in range(0, len(lists.lengths), per):
        end = min(first + per, len(lists.lengths))
        yield masked(joined.rows(first, end), lists.lengths[first:end])


def compare(file: h5py.File, lists: Lists) -> None:
    """Raise ``OSError`` unless the datasets of ``lists`` read as they were written."""
    for name, values in lists.tables:
        if file[name][...].tobytes() != values.tobytes():
            raise OSError(f"{file.filename}: {name} does not read back as written")
    for _, flat, joined in lists.members:
        begin, data = 0, file[flat.values]
        for unit in _units(lists, joined):
            end = begin + len(unit)
            if data[begin:end].tobytes() != unit.tobytes():
                raise OSError(
                    f"{file.filename}: {flat.values} reads back differently from {begin} on"
                )
            begin = end
        if len(data) != begin:
            raise OSError(f"{file.filename}: {flat.values} has {len(data)} of {begin} entries")
