"""Epochs of a run: intervals of shots with the same columns and parameters, one after another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from typing import NamedTuple

from ffb.schema import Schema
from ffb.sink import Provenance

#: The column that numbers epochs ends here.
MAX_EPOCH = 65_535


class Parameters(NamedTuple):
    """What an epoch is made of; equal ``key``, equal columns and numbers."""

    key: str
    schema: Schema
    provenance: Provenance

    @classmethod
    def of(cls, schema: Schema, provenance: Provenance) -> Parameters:
        """Parameters with their key: what says where and by what they were used is left out."""
        p = provenance
        text = json.dumps([p.config, p.reducers, p.constants], sort_keys=True, default=repr)
        digest = hashlib.blake2b(text.encode(), digest_size=8)
        return cls(f"{schema.id.hex()}-{digest.hexdigest()}", schema, provenance)


class Epochs:
    """Which epoch it is, and when another begins.

    Rows of another epoch wait: until nobody is at work in the present one, but for the horizon at
    most. There is at most one change a horizon, so that two epochs that overlap cannot flap.
    """

    def __init__(self, first: Parameters, horizon_ns: int) -> None:
        self.number, self.current = 0, first
        self._horizon_ns, self._since = horizon_ns, -horizon_ns
        self._known = {first.key: first}

    def know(self, parameters: Parameters) -> Parameters:
        """Parameters somebody has begun with; equal ones are kept once."""
        return self._known.setdefault(parameters.key, parameters)

    def due(
        self, waiting: Mapping[str, int], in_use: Container[str], now: int, at_once: bool
    ) -> Parameters | None:
        """Parameters of the epoch that has to begin now, if any.

        ``waiting`` says by key since when rows wait, ``in_use`` what producers at work have begun
        with last. With ``at_once`` nothing is waited for.
        """
        others = {key: since for key, since in waiting.items() if key != self.current.key}
        if not others or self.number >= MAX_EPOCH:
            return None
        key = min(others, key=lambda k: others[k])
        long = now - others[key] >= self._horizon_ns or self.current.key not in in_use
        if at_once or (long and now - self._since >= self._horizon_ns):
            return self._known[key]
        return None

    def begin(self, parameters: Parameters, now: int) -> None:
        """Let the next epoch begin."""
        self.number, self.current, self._since = self.number + 1, parameters, now
