"""Find reducers, and functions of the run, by the names a configuration gives them."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ffb.configuration.problems import nearest
from ffb.reduce import Reducer, TileReducer

_DECLARES = re.compile(r"^@(tile_)?reducer\(", re.MULTILINE)


def installed() -> list[str]:
    """Names of the reducers that ship with ffb, found without importing them."""
    spec = find_spec("ffb.reducers")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [f for folder in folders for f in Path(folder).glob("*.py")]
    return sorted(f.stem for f in files if _DECLARES.search(f.read_text("utf-8")))


def reducer(use: str, folder: Path) -> Reducer[Any, Any] | TileReducer:
    """The reducer called ``use``: ``"roi"``, ``"package.module:name"`` or ``"./file.py:name"``.

    Paths are seen from ``folder``. Raises ``LookupError`` with a sentence that says what was
    looked for where, and the nearest name there is.
    """
    if ":" in use:
        found = function(use, folder)
    elif use in installed():
        found = getattr(_import(f"ffb.reducers.{use}"), use, None)
    else:
        raise LookupError(f"no reducer {use!r}; {nearest(use, installed())}")
    if not isinstance(found, Reducer | TileReducer):
        raise LookupError(f"{use!r} is not a reducer but {found!r}; declare it with @reducer")
    return found


def function(use: str, folder: Path) -> Any:
    """What ``"./file.py:name"`` or ``"package.module:name"`` names.

    Raises ``LookupError`` as :func:`reducer` does.
    """
    where, _, name = use.rpartition(":")
    module = _load(folder / Path(where).expanduser()) if where.endswith(".py") else _import(where)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise LookupError(f"{where} holds no {name!r}; {nearest(name, public)}")
    return getattr(module, name)


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except Exception as e:
        raise LookupError(f"cannot import {name}: {type(e).__name__}: {e}") from e


def _load(path: Path) -> Any:
    """Import a file under a name made of its text, so that an edited file is a new module."""
    try:
        text = path.read_bytes()
    except OSError as e:
        raise LookupError(f"cannot read {path}: {(e.strerror or str(e)).lower()}") from e
    digest = hashlib.blake2b(str(path.resolve()).encode() + text, digest_size=8).hexdigest()
    name = f"ffb_local_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LookupError(f"{path} is not a Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        del sys.modules[name]
        raise LookupError(f"cannot run {path}: {type(e).__name__}: {e}") from e
    return module
