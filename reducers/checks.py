"""Problems with parameters, gathered so that all are told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Append what a ``ValueError`` says to ``problems`` instead of raising it.

    What the block was to make is not there then: raise before it is used.
    """
    try:
        yield
    except ValueError as e:
        problems.append(str(e))
