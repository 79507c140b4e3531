"""Cuts: which shots of a run's file pass a condition, evaluated as the producers evaluate filters.

Exports :class:`Cut` and :func:`condition`. For every committed row a cut says yes, no or unknown
(Kleene's logic, see :mod:`ffb.configuration.expression`); as a mask it is true where it says yes. A
row once judged is not read again, and a file that grows only adds rows.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ffb.configuration.expression import NO, UNKNOWN, YES, names_in
from ffb.configuration.functions import CODES as ASKING
from ffb.configuration.syntax import read
from ffb.reading.frame import flag_of
from ffb.schema import VALID, Column, Schema

if TYPE_CHECKING:
    from ffb.reading.shots import Shots

Truth = NDArray[np.uint8]
Judge = Callable[[slice], Truth]

#: Event codes of each shot, a flag for each of them, where the file has them.
CODES = "timing/eventcodes"

#: Bytes of the columns that a condition names, read at a time.
BLOCK = 8 << 20

_OWN = "_cut_"


class Cut:
    """Shots of a run that pass; ``run[name][cut]`` reads those alone.

    Get one from ``run.cut("tt.ampl > 0.05")``, ``run.light.on``, ``run.during(...)`` and
    ``run.at(...)``. ``&``, ``|`` and ``~`` join them, also with masks. A shot of which it is
    unknown whether it passes is neither in ``cut`` nor in ``~cut``.
    """

    __array_ufunc__ = None  # numpy leaves `mask & cut` to us

    def __init__(self, run: Shots, text: str, judge: Judge) -> None:
        self.run, self.text, self._judge = run, text, judge
        self._truth: Truth = np.zeros(0, np.uint8)

    def truth(self, rows: slice = slice(None)) -> Truth:
        """``NO``, ``UNKNOWN`` or ``YES`` of :mod:`ffb.configuration.expression` for rows: uint8."""
        known, end = len(self._truth), self.run.committed
        if known < end:
            self._truth = np.concatenate([self._truth, self._judge(slice(known, end))])
        return self._truth[:end][rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.truth() == YES, dtype=dtype)

    def __getitem__(self, rows: Any) -> Any:
        """The mask of some rows."""
        return np.asarray(self)[rows]

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Rows of which it cannot be said, because something is missing."""
        return np.asarray(self.truth() == UNKNOWN)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that pass."""
        return np.flatnonzero(np.asarray(self))

    @property
    def count(self) -> int:
        """How many pass."""
        return int(np.count_nonzero(np.asarray(self)))

    def __len__(self) -> int:
        return self.run.committed

    def __and__(self, other: Cut | NDArray[np.bool_]) -> Cut:
        return self._join(other, "&", np.minimum)

    def __or__(self, other: Cut | NDArray[np.bool_]) -> Cut:
        return self._join(other, "|", np.maximum)

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> Cut:
        return Cut(self.run, f"~({self.text})", lambda rows: 2 - self.truth(rows))

    def _join(self, other: Cut | NDArray[np.bool_], sign: str, least: Any) -> Cut:
        second = other if isinstance(other, Cut) else of_mask(self.run, other)
        if second.run is not self.run:
            raise ValueError(
                "cuts of two files do not join; align their rows by run.align(other) instead"
            )
        text = f"({self.text}) {sign} ({second.text})"
        return Cut(self.run, text, lambda rows: least(self.truth(rows), second.truth(rows)))

    def __bool__(self) -> bool:
        raise TypeError("a cut is yes or no for each shot: write & | ~ instead of and, or, not")

    def __iter__(self) -> Iterator[bool]:
        return iter(np.asarray(self).tolist())

    def __repr__(self) -> str:
        unknown = int(np.count_nonzero(self.unknown))
        more = f", unknown of {unknown:,}" if unknown else ""
        return f"<cut {self.text}: {self.count:,} of {len(self):,} shots{more}>"


def of_mask(run: Shots, mask: Any) -> Cut:
    """A mask over the committed rows as a cut; rows that come later are unknown."""
    flags = np.asarray(mask)
    if flags.dtype != np.bool_ or flags.shape != (run.committed,):
        raise ValueError(
            f"expected a mask of {run.committed:,} rows, got {flags.dtype} of shape {flags.shape}"
        )

    def judge(rows: slice) -> Truth:
        out = np.full(rows.stop - rows.start, UNKNOWN, np.uint8)
        told = flags[rows]
        out[: len(told)] = np.where(told, YES, NO)
        return out

    return Cut(run, "mask", judge)


def condition(run: Shots, text: str, named: Mapping[str, Cut]) -> Cut:
    """The cut that ``text`` says, over columns and ``named`` cuts.

    A column is written ``tt.ampl``, ``'tt/ampl'`` or ``tt/ampl``. Raises ``ValueError`` with
    everything that is wrong.
    """
    from ffb.configuration.conditions import FilterConfig
    from ffb.loops.combine import Combined  # it compiles: a plain reader need not wait

    columns = {c.name: c for c in run.schema.columns}
    names = {n for n in named if n not in columns}
    flags = [Column(f, "|b1") for n in sorted(names) for f in (n, f"{n}{VALID}")]
    plain = _paths(text, columns)
    found = Combined({}, {_OWN: FilterConfig(expr=plain)}, (*columns.values(), *flags))
    wrong = [p.removeprefix(f"filters.{_OWN}.expr: ") for p in found.problems]
    if _asks_codes(plain) and CODES not in run:
        wrong.append(f"the file has no event codes ({CODES}); record them, or use lightStatus")
    if wrong:
        raise ValueError(f"cut {text!r}: {'; '.join(wrong)}")
    schema = Schema((*found.reads, *found.columns))
    used = {n: named[n] for n in names if names_in(plain) & {n, f"{n}{VALID}"}}
    return Cut(run, text, _Judge(run, found, schema, used, _asks_codes(plain)))


class _Judge:
    """Evaluates a compiled condition, a block of rows at a time."""

    def __init__(
        self, run: Shots, found: Any, schema: Schema, named: Mapping[str, Cut], codes: bool
    ) -> None:
        from ffb.batch import Batch
        from ffb.shot import FrameBlock

        self._run, self._found, self._named, self._codes = run, found, named, codes
        capacity = max(1, min(1 << 16, BLOCK // max(1, sum(schema.row_bytes))))
        self._block, self._batch = FrameBlock({}, capacity), Batch(schema, capacity)
        found.compile(schema, self._block)

    def __call__(self, rows: slice) -> Truth:
        step = self._block.capacity
        begins = range(rows.start, rows.stop, step)
        blocks = (slice(begin, min(begin + step, rows.stop)) for begin in begins)
        return np.concatenate([np.zeros(0, np.uint8), *map(self._judge, blocks)])

    def _judge(self, rows: slice) -> Truth:
        n, columns = rows.stop - rows.start, self._batch.columns
        for c in self._found.reads:
            if c.name in self._named:
                columns[c.name][:n] = self._named[c.name].truth(rows) == YES
            elif (cut := self._named.get(c.name.removesuffix(VALID))) is not None:
                columns[c.name][:n] = cut.truth(rows) != UNKNOWN
            else:
                columns[c.name][:n] = self._run[c.name][rows]
        if self._codes:
            self._take_codes(n, rows)
        self._found.run(n, self._batch)
        yes, known = columns[_OWN][:n], columns[f"{_OWN}{VALID}"][:n]
        return np.where(known, np.where(yes, YES, NO), UNKNOWN).astype(np.uint8)

    def _take_codes(self, n: int, rows: slice) -> None:
        given = np.asarray(self._run[CODES][rows])
        self._block.timed[:n] = (given >= 0).all(axis=1)
        if flag := flag_of(self._run, self._run.schema.by_name[CODES]):
            self._block.timed[:n] &= self._run[flag][rows]
        there = np.zeros((n, self._block.codes[0].size * 16), np.bool_)
        there[:, : given.shape[1]] = given > 0
        words = np.packbits(there, axis=1, bitorder="little").view("<u2")
        self._block.codes[:n] = words


def _asks_codes(text: str) -> bool:
    called = {n.func.id for n in _calls(text)}
    return bool(called & ASKING.keys())


def _calls(text: str) -> Iterator[Any]:
    try:
        tree = read(text)
    except ValueError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node


def _paths(text: str, columns: Mapping[str, Column]) -> str:
    """``text`` with columns that are written ``a/b`` as expressions write them.

    No file has columns ``a`` and ``a/b``, so that it cannot be a division.
    """
    try:
        return ast.unparse(_Slashes(columns).visit(read(text)))
    except (ValueError, RecursionError):
        return text  # what is wrong is said when it is translated


class _Slashes(ast.NodeTransformer):
    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        parts = _parts(node)
        if "/".join(parts) in self._columns:
            return ast.copy_location(ast.Constant("/".join(parts)), node)
        self.generic_visit(node)
        return node


def _parts(node: ast.expr) -> list[str]:
    """Names between which ``/`` stands, none if it is anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = _parts(node.left), _parts(node.right)
        return [*left, *right] if left and right else []
    return []
