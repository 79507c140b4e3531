"""Which whole-shot reducers run shot by shot, because conditions of sums ask for their features.

A frame can be added to a sum as long as it is there. So what the condition of a sum over an area
detector reads is found before its frames are passed over, as far as it is made of anything else;
such a sum is made in that pass. A condition that reads features of a frame itself, or its damage,
is *late*: its sum takes a second pass, over the frames for which it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ffb.loops.fuse import Member
from ffb.reduce import TileReducer


class Ahead(NamedTuple):
    """Whole-shot reducers by when they run, and which sums have to wait for frames.

    Each in order: those that run for a shot ``before`` its frames are passed over, those that run
    ``after``, and those that run for a batch at once. ``late`` are sums with late conditions.
    """

    before: tuple[Member, ...]
    after: tuple[Member, ...]
    rest: tuple[Member, ...]
    late: frozenset[str]


def divided(
    members: Sequence[Member], wanted: Mapping[str, Collection[str]], late: Collection[str]
) -> Ahead:
    """Divide ``members`` by the columns that are ``wanted`` by the condition of each sum.

    Columns that are ``late`` are known when the frames have been passed over.
    """
    owner = {c.name: m for m in members for c in m.all_columns}
    needs = {m.name: _owners(m.inputs, owner) for m in members}
    behind = {m.name for m in members if isinstance(m.reducer, TileReducer)}
    tile = frozenset(behind)
    for m in members:  # each behind those whose features it takes
        if needs[m.name] & behind:
            behind.add(m.name)
    called, after = set[str](), set[str]()
    for name, columns in wanted.items():
        mine = [*_owners(columns, owner)]
        for n in mine:  # grows
            mine += needs[n] - {*mine}
        called |= {*mine} - tile
        if {*mine} & behind or {*columns} & {*late}:
            after.add(name)
    shots = [m for m in members if m.name not in tile]
    return Ahead(
        tuple(m for m in shots if m.name in called and m.name not in behind),
        tuple(m for m in shots if m.name in called and m.name in behind),
        tuple(m for m in shots if m.name not in called),
        frozenset(after),
    )


def _owners(columns: Collection[str], owner: Mapping[str, Member]) -> set[str]:
    return {owner[c].name for c in columns if c in owner}
