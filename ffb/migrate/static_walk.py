"""Walks the tree of a Python file and tells what it says; nothing of it is run.

Exports :class:`Walker`; see :mod:`ffb.migrate.static`.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ffb.migrate.static_values import (
    CALLS,
    DIGITS,
    METHODS,
    NUMPY,
    OPERATORS,
    RUN,
    Table,
    Unread,
    UnreadError,
    few,
    updated,
)

#: Nodes visited for one answer; calls within calls.
STEPS, DEPTH = 100_000, 10


class _ReturnedError(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Walker:
    """Reads one function, or the top of the file, for one run.

    ``ends`` are runs at which a condition changes, ``passed`` the statements it passed over.
    """

    def __init__(
        self,
        functions: Mapping[str, ast.FunctionDef],
        constants: Mapping[str, Any],
        names: dict[str, Any],
        run: int,
    ) -> None:
        self._functions, self._constants = functions, constants
        self._names, self._run = names, run
        self.ends: set[int] = set()
        self.passed: list[Unread] = []
        self._left, self._depth = STEPS, 0

    # -- statements --------------------------------------------------------------------------

    def attempt(self, body: Sequence[ast.stmt]) -> list[Unread]:
        """Take the statements that can be taken; what was passed over."""
        try:
            self._body(body)
        except _ReturnedError:
            pass
        except RecursionError:
            self.passed.append(Unread(body[0].lineno, "is nested too deeply"))
        return self.passed

    def answer(self, function: ast.FunctionDef) -> Any:
        """What a function of the run returns."""
        try:
            return self.weighed(self.call(function, [RUN]), function)
        except UnreadError as e:
            return Unread(e.line, e.why)

    def call(self, function: ast.FunctionDef, given: Sequence[Any]) -> Any:
        """What a function of the file returns."""
        line = function.lineno
        names = [a.arg for a in function.args.args]
        defaults = [self.value(d) for d in function.args.defaults]
        if self._depth >= DEPTH:
            return Unread(line, f"{function.name} calls itself")
        values = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        values |= dict(zip(names, given, strict=False))
        more = function.args.vararg or function.args.kwarg or function.args.kwonlyargs
        if more or values.keys() != {*names} or len(given) > len(names):
            return Unread(line, f"{function.name} is called with arguments that it does not have")
        outer, self._names, self._depth = self._names, values, self._depth + 1
        try:
            self._body(function.body)
        except _ReturnedError as done:
            return done.value
        except RecursionError:
            return Unread(line, "is nested too deeply")
        finally:
            self._names, self._depth = outer, self._depth - 1
        return None

    def _body(self, body: Sequence[ast.stmt]) -> None:
        for node in body:
            try:
                self._statement(node)
            except UnreadError as e:
                self.passed.append(Unread(e.line, e.why))

    def _statement(self, node: ast.stmt) -> None:
        self._count(node)
        match node:
            case ast.Return(value=value):
                raise _ReturnedError(None if value is None else self.value(value))
            case ast.Assign(targets=targets, value=value):
                found = self.value(value)
                for target in targets:
                    self._assign(target, found)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self.value(value))
            case ast.AugAssign(target=target, op=op, value=value):
                loaded = ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)
                both = ast.copy_location(ast.BinOp(loaded, op, value), node)
                self._assign(target, self.value(ast.fix_missing_locations(both)))
            case ast.If(test=test):
                chosen = self.value(test)
                if isinstance(chosen, Unread):
                    raise UnreadError(node.lineno, f"the condition is not read: {chosen.why}")
                self._body(node.body if chosen else node.orelse)
            case ast.For(target=target, iter=over, body=inner, orelse=[]):
                for item in self._items(over):
                    self._assign(target, item)
                    self._body(inner)
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
                pass
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
                pass
            case ast.Expr(value=value):
                if isinstance(found := self.value(value), Unread):
                    raise UnreadError(found.line, found.why)
            case _:
                what = type(node).__name__.lower()
                raise UnreadError(node.lineno, f"a {what} statement is not read")

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self._names[name] = value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                if not isinstance(value, list | tuple) or len(value) != len(parts):
                    value = [Unread(target.lineno, "cannot be taken apart")] * len(parts)
                for part, item in zip(parts, value, strict=True):
                    self._assign(part, item)
            case ast.Subscript(value=whole, slice=index):
                holder, key = self.value(whole), self.value(index)
                if isinstance(holder, Table) and isinstance(key, str | int | float):
                    holder[key] = value
                    holder.lines[key] = target.lineno
                elif (
                    isinstance(holder, list)
                    and type(key) is int
                    and -len(holder) <= key < len(holder)
                ):
                    holder[key] = value
                else:
                    raise UnreadError(target.lineno, f"cannot set {ast.unparse(target)}")
            case _:
                raise UnreadError(target.lineno, f"cannot set {ast.unparse(target)}")

    def _items(self, over: ast.expr) -> list[Any]:
        found = self.value(over)
        if isinstance(found, Unread):
            raise UnreadError(found.line, found.why)
        if not isinstance(found, list | tuple | Table | str):
            raise UnreadError(over.lineno, f"cannot go through {ast.unparse(over)}")
        return list(found)

    def _count(self, node: ast.AST) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnreadError(getattr(node, "lineno", 0), "goes on for too long to be read")

    def weighed(self, value: Any, node: ast.AST) -> Any:
        """``value`` itself, once all that is in it has been counted as steps."""
        waiting = [value]
        while waiting:
            self._count(node)
            match waiting.pop():
                case list() | tuple() as items:
                    waiting += items if len(items) <= self._left else [*items[: self._left + 1]]
                case Table() as table:
                    waiting += table.values()
                case str() as text:
                    few(len(text))
        return value

    # -- values ------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Any:
        """The value of an expression, or ``Unread``."""
        try:
            self._count(node)
            found = self._value(node)
            if isinstance(node, ast.Name | ast.Constant | ast.Subscript):
                return found
            return self.weighed(found, node)
        except UnreadError as e:
            return Unread(e.line, e.why)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as e:
            return Unread(node.lineno, f"{ast.unparse(node)[:80]}: {e}")

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None as value):
                return value
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.List(elts=parts) | ast.Set(elts=parts):
                return [self.value(p) for p in parts]
            case ast.Tuple(elts=parts):
                return tuple(self.value(p) for p in parts)
            case ast.Dict():
                return self._table(node)
            case ast.UnaryOp(op=op, operand=x) if type(op) in OPERATORS:
                return OPERATORS[type(op)](self._plain(x))
            case ast.BinOp(left=a, op=ast.Pow(), right=b):
                return self._power(self._plain(a), self._plain(b))
            case ast.BinOp(left=a, op=op, right=b) if type(op) in OPERATORS:
                return self._bounded(OPERATORS[type(op)], self._plain(a), self._plain(b))
            case ast.BoolOp(op=op, values=values):
                return self._either(values, isinstance(op, ast.Or))
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp(test=test, body=yes, orelse=no):
                return self.value(yes if self._plain(test) else no)
            case ast.Subscript(value=whole, slice=index):
                return self._element(node, whole, index)
            case ast.JoinedStr(values=values):
                return "".join(self._piece(v) for v in values)
            case ast.ListComp(elt=made, generators=[ast.comprehension(ifs=[]) as one]):
                return [self._with(one.target, item, made) for item in self._items(one.iter)]
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr=name) if name in NUMPY:
                return NUMPY[name]
            case ast.Call():
                return self._call(node)
        raise UnreadError(node.lineno, f"{ast.unparse(node)[:80]} is not read")

    def _plain(self, node: ast.expr) -> Any:
        """A value that is known; the run itself is not."""
        found = self.value(node)
        if isinstance(found, Unread):
            raise UnreadError(found.line, found.why)
        if found is RUN:
            raise UnreadError(node.lineno, "it is computed from the number of the run")
        return found

    def _name(self, node: ast.expr, name: str) -> Any:
        for names in (self._names, self._constants):
            if name in names:
                return names[name]
        raise UnreadError(node.lineno, f"{name} is not known")

    def _table(self, node: ast.Dict) -> Table:
        out = Table()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                updated(out, self._plain(value))
                continue
            name = self._plain(key)
            out[name] = self.value(value)
            out.lines[name] = value.lineno
        return out

    def _bounded(self, act: Callable[..., Any], a: Any, b: Any) -> Any:
        for x, n in ((a, b), (b, a)):
            if isinstance(x, list | tuple | str) and act is operator.mul and type(n) is int:
                few(len(x) * max(n, 0))
        if act is operator.mod and isinstance(a, str):
            raise ValueError("texts made with % are not read; write them out")
        made = act(a, b)
        if isinstance(made, int) and made.bit_length() > 4 * DIGITS:
            raise ValueError("the number is too large")
        if isinstance(made, list | tuple | str):
            few(len(made))
        return made

    def _power(self, a: Any, b: Any) -> Any:
        if isinstance(a, int) and isinstance(b, int) and a.bit_length() * abs(b) > 4 * DIGITS:
            raise ValueError("the number is too large")
        return a**b

    def _either(self, values: Sequence[ast.expr], wanted: bool) -> Any:
        found: Any = None
        for node in values:
            found = self._plain(node)
            if bool(found) is wanted:
                return found
        return found

    def _compare(self, node: ast.Compare) -> bool:
        sides = [self.value(n) for n in (node.left, *node.comparators)]
        for op, a, b in zip(node.ops, sides, sides[1:], strict=False):
            for x in (a, b):
                if isinstance(x, Unread):
                    raise UnreadError(x.line, x.why)
            if RUN in (a, b) if not isinstance(b, list | tuple) else a is RUN:
                self._learn(node, b if a is RUN else a)
            x, y = (self._run if v is RUN else v for v in (a, b))
            if not OPERATORS[type(op)](x, y):
                return False
        return True

    def _learn(self, node: ast.Compare, other: Any) -> None:
        """Note the runs at which a comparison with ``other`` may change."""
        for number in other if isinstance(other, list | tuple) else [other]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise UnreadError(node.lineno, f"the run is compared with {number!r}")
            if math.isfinite(number):
                self.ends |= {math.floor(number), math.floor(number) + 1}

    def _element(self, node: ast.expr, whole: ast.expr, index: ast.expr) -> Any:
        if ast.unparse(whole) in ("np.s_", "numpy.s_"):
            return self._slices(index)
        holder = self._plain(whole)
        if isinstance(index, ast.Slice):
            bounds = (index.lower, index.upper, index.step)
            return holder[slice(*(None if b is None else self._plain(b) for b in bounds))]
        return holder[self._plain(index)]

    def _slices(self, index: ast.expr) -> list[Any]:
        if isinstance(index, ast.Tuple):
            return [self._slices(part) for part in index.elts]
        if not isinstance(index, ast.Slice) or index.step or index.upper is None:
            raise UnreadError(index.lineno, f"cannot take {ast.unparse(index)}")
        return [0 if index.lower is None else self._plain(index.lower), self._plain(index.upper)]

    def _piece(self, node: ast.expr) -> str:
        if isinstance(node, ast.FormattedValue):
            form = "" if node.format_spec is None else self._plain(node.format_spec)
            if not isinstance(form, str) or any(int(d) > 99 for d in _digits(form)):
                raise UnreadError(node.lineno, "the format is not read")
            return format(self._plain(node.value), form)
        return str(self._plain(node))

    def _with(self, target: ast.expr, item: Any, made: ast.expr) -> Any:
        self._assign(target, item)
        return self.value(made)

    def _call(self, node: ast.Call) -> Any:
        if any(k.arg is None for k in node.keywords):
            raise UnreadError(node.lineno, f"{ast.unparse(node)[:80]} is not read")
        name = ast.unparse(node.func).replace("numpy.", "np.")
        typed = name == "isinstance"
        given = [self.value(a) for a in (node.args[:1] if typed else node.args)]
        named = {str(k.arg): self.value(k.value) for k in node.keywords}
        if name == "dict" and not given:
            table = Table(named)
            table.lines = dict.fromkeys(named, node.lineno)
            return table
        if name in self._functions and not named:
            return self.call(self._functions[name], given)
        for x in (*given, *named.values()):
            if isinstance(x, Unread) and not name.endswith(".append"):
                raise UnreadError(x.line, x.why)
        named.pop("dtype", None)
        if typed and given == [RUN]:
            return "int" in ast.unparse(node.args[1])
        if name == "int" and given == [RUN]:
            return RUN
        if name in CALLS and RUN not in given:
            return CALLS[name](*given, **named)
        if isinstance(node.func, ast.Attribute):
            holder = self.value(node.func.value)
            method = METHODS.get((type(holder), node.func.attr))
            if method is not None and RUN not in given:
                return method(holder, *given, **named)
        raise UnreadError(node.lineno, f"{name}(...) would have to be run")


def _digits(form: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in form).split()
