"""Tables on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

#: Columns of output that does not go to a terminal, unless COLUMNS says otherwise.
WIDE = 160


def console() -> Console:
    """Where tables go: as wide as the terminal, and wide enough for ``grep`` without one."""
    free = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if free else WIDE, highlight=False, markup=False, emoji=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table that a terminal of any width can show and ``cut`` can take apart."""
    out = Table(box=None, pad_edge=False)
    for head in heads:
        out.add_column(head, overflow="fold")
    for row in rows:
        out.add_row(*map(str, row))
    return out
