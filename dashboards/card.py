"""A card of the bar: one statement, what it rests on, and how bad it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GOOD, WARN, BAD, QUIET = "good", "warn", "bad", "quiet"

Meta = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One statement: a heading, a value with a word, what it rests on, and how bad it is.

    A ``line`` takes the whole width, for sentences.
    """

    title: str
    value: str
    detail: str
    state: str
    line: bool = False
