"""Compile reducers' functions, and keep what was compiled between processes.

Compiling takes seconds, so generated functions are written to a cache directory
(``$FFB_CACHE``, else ``~/.cache/ffb/kernels``) under a name that holds a hash of everything they
depend on: their own text and types, the text of every function they call, the compiler and its
switches. numba's own cache alone does not notice an edited callee.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import inspect
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

#: No ``nnan``: with it the compiler deletes every test for NaN. No ``nsz``: with it x - x of a sum
#: x is 0 whatever x is, and numba asks by x - x whether x is finite.
OPTIONS: Mapping[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp"},
}

#: Bytes of a line of the cache, and of the longest vector.
LINE = 64


def _options(checked: bool, exact: bool) -> dict[str, Any]:
    """``OPTIONS``, with bounds checks; ``exact`` floats are what IEEE 754 says, as numpy's."""
    more = {"boundscheck": True} if checked else {}
    return {**OPTIONS, **more, **({"fastmath": False} if exact else {})}


@cache
def kernel(
    fn: Callable[..., Any], checked: bool = False, exact: bool = False, inlined: bool = False
) -> Any:
    """``fn`` as a numba function, compiled when called; ``checked`` adds bounds checks.

    ``exact`` leaves floating-point operations as they are written. ``inlined`` makes it part of its
    caller, with what it calls: for one that takes many arrays at every row. Each of their words is
    handed over on the stack, and a call counts a reference to each, even to those borrowed.
    """
    return numba.njit(fn, **_options(checked, exact), forceinline=inlined)


def aligned(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros (size,) that begin where a line of the cache does, which numpy's need not.

    A vector that lies across two lines takes twice as long to load, and to store.
    """
    kind = np.dtype(dtype)
    memory = np.zeros(size * kind.itemsize + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size * kind.itemsize].view(kind)


def borrowed(array: Any) -> Any:
    """``array`` itself; compiled code counts no references to it and to slices of it.

    For arguments of a compiled function, which its caller holds. Counting is atomic, which took a
    third of the time of a pass over an area detector that slices a few arrays for every row.
    """
    return array


@intrinsic  # type: ignore[untyped-decorator]
def _without_owner(_: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out = make_array(signature.args[0])(context, builder, args[0])
        out.meminfo = context.get_constant_null(numba.types.voidptr)
        return out._getvalue()

    return array(array), generate


@overload(borrowed, strict=False)  # type: ignore[untyped-decorator]
def _borrowed(array: Any) -> Any:
    return lambda array: _without_owner(array)


def lent(array: Any, like: Any) -> Any:
    """``array`` of one dimension, for reading, in compiled code as of the type of ``like``.

    So that what takes arrays of our own takes a read-only one, too; its elements must be aligned.
    """
    return array


@intrinsic  # type: ignore[untyped-decorator]
def _typed(_: Any, array: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = make_array(array)(context, builder, args[0])
        out = make_array(like)(context, builder)
        for field in ("data", "nitems", "itemsize", "shape", "strides"):
            setattr(out, field, getattr(given, field))
        out.meminfo = context.get_constant_null(numba.types.voidptr)
        out.parent = context.get_constant_null(numba.types.pyobject)
        return out._getvalue()

    return like(array, like), generate


@overload(lent, strict=False)  # type: ignore[untyped-decorator]
def _lent(array: Any, like: Any) -> Any:
    return lambda array, like: _typed(array, like)


def prefetch(array: Any, index: Any) -> None:
    """Have the cache line with ``array.flat[index]`` fetched, for compiled code; waits for nothing.

    For reads here and there in arrays far larger than the cache: asked for together, their lines
    come together. Does nothing in plain Python.
    """


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, word, word, word])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        builder.call(fn, [line, word(0), word(3), word(1)])  # to read, soon and often, data
        return context.get_dummy_value()

    return numba.types.void(array, index), generate


@overload(prefetch, strict=False)  # type: ignore[untyped-decorator]
def _prefetched(array: Any, index: Any) -> Any:
    return lambda array, index: _prefetch(array, index)


@cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ffb-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """The folder for compiled code; one of this process's own where the usual is unwritable."""
    asked = os.environ.get("FFB_CACHE")
    folder = Path(asked) if asked else Path.home() / ".cache" / "ffb" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _temporary()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process compiles what belongs at ``path``; then find it there."""
    with open(path.with_suffix(".lock"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _named(fn: FunctionType) -> dict[str, Any]:
    """What a function names in its module, and in modules of ours that it names, by dotted name."""
    names = sorted(_names(fn.__code__))
    found = {name: fn.__globals__[name] for name in names if name in fn.__globals__}
    modules = {n: vars(m) for n, m in found.items() if isinstance(m, ModuleType) and _ours(m)}
    inside = ((f"{n}.{a}", held[a]) for n, held in modules.items() for a in names if a in held)
    return found | dict(inside)


def _ours(module: ModuleType) -> bool:
    """Whether a module may hold functions that are compiled with those that name it."""
    return module.__name__.split(".")[0] not in {"math", "numba", "numpy"}


def _visit(value: Any, seen: dict[int, str]) -> None:
    """Add what a compiled function depends on to ``seen``: texts of files, plain constants."""
    options = getattr(value, "targetoptions", {})
    value = getattr(value, "py_func", value)
    if id(value) in seen:
        return
    if isinstance(value, bool | int | float | str | tuple | np.generic):
        seen[id(value)] = repr(value)
    elif isinstance(value, np.ndarray):
        seen[id(value)] = hashlib.sha256(value.tobytes()).hexdigest()
    elif isinstance(value, type):
        seen[id(value)] = f"{value.__module__}.{value.__qualname__}{getattr(value, '_fields', '')}"
    elif isinstance(value, ModuleType):
        file = getattr(value, "__file__", None)
        seen[id(value)] = Path(file).read_text("utf-8") if _ours(value) and file else value.__name__
    elif isinstance(value, FunctionType):
        way = " inlined" if options.get("forceinline") else ""
        seen[id(value)] = value.__module__ + inspect.getsource(value) + way
        for found in _named(value).values():
            _visit(found, seen)
        for cell in value.__closure__ or ():
            _visit(cell.cell_contents, seen)


def fingerprint(functions: Iterable[Any]) -> str:
    """Hash of the functions' text and of everything of ours that they refer to."""
    digest = hashlib.sha256()
    for fn in functions:
        seen: dict[int, str] = {}
        _visit(fn, seen)
        for text in seen.values():
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def build(
    source: str,
    scope: Mapping[str, Any],
    types: tuple[Any, ...],
    *,
    checked: bool = False,
    exact: bool = False,
) -> Any:
    """Compile the last function that ``source`` defines for arguments of numba ``types``.

    ``scope`` holds the functions and types it names; ``checked`` and ``exact`` are those of
    :func:`kernel`. Raises numba's own errors.
    """
    parts = (
        source,
        repr(types),
        fingerprint(scope.values()),
        repr((checked, exact, sorted(OPTIONS["fastmath"]))),
        numba.__version__,
        np.__version__,
        str(numba.config.BOUNDSCHECK),
        str(numba.config.OPT),
    )
    name = f"ffb_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}"
    path = cache_folder() / f"{name}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as f:
            f.write(source)
        os.replace(f.name, path)
    module = ModuleType(name)
    module.__dict__.update({"np": np, "__file__": str(path), **scope})
    sys.modules[name] = module  # numba imports it by name when it loads what it cached
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - text made in fuse.py
    fn = module.__dict__[re.findall(r"^def (\w+)", source, re.MULTILINE)[-1]]
    if numba.config.DISABLE_JIT:
        return fn
    with _alone(path):
        return numba.njit(types, cache=True, **_options(checked, exact))(fn)


def uncompiled(fn: Any) -> Callable[..., Any]:
    """``fn`` in plain Python, as are the compiled functions that it names: numpy checks bounds."""
    fn = getattr(fn, "py_func", fn)
    scope = dict(fn.__globals__)
    for name, found in _named(fn).items():
        inner = getattr(found, "py_func", fn)
        if inner is fn:
            continue
        module, _, attribute = name.rpartition(".")
        if module:  # a copy of it in which that function is plain
            held = vars(scope[module]) | {attribute: uncompiled(inner)}
            scope[module] = SimpleNamespace(**held)
        else:
            scope[name] = uncompiled(inner)
    return FunctionType(fn.__code__, scope, fn.__name__, fn.__defaults__, fn.__closure__)


def in_short(error: BaseException | None) -> str:
    """What a compiler's page-long error says first and last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if len(lines) < 3 else " ... ".join((lines[0], lines[-1]))
    return f"{type(error).__name__}: {text}"
