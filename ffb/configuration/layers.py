"""TOML files in layers: read, merged, overridden, and written out again as one."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Where a layer given by name is looked for, after the folder of the file that names it.
HUTCHES = Path(__file__).parents[1] / "hutches"

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[A-Za-z_./~{][^\s\"'\[\],=]*")


class LayerError(ValueError):
    """A file or an override that cannot be read; the text says which, where and why."""


class Layer(NamedTuple):
    """One file's (or the overrides') data, before merging."""

    name: str
    data: dict[str, Any]


def read(path: Path) -> list[Layer]:
    """The file at ``path`` and the layers it stands on, lowest first.

    Raises :class:`LayerError` for a file that is missing, unreadable or no TOML, for a layer that
    cannot be found, and for layers that stand on each other in a circle.
    """
    layers: list[Layer] = []
    seen: list[Path] = []
    here: Path | None = path
    while here is not None:
        if here.resolve() in seen:
            raise LayerError(f"{path}: layer: {here.name} stands on itself")
        seen.append(here.resolve())
        data = _toml(here)
        layers.insert(0, Layer(str(here), data))
        here = _find(here, data["layer"]) if "layer" in data else None
    return layers


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise LayerError(f"{path}: cannot read: {(e.strerror or str(e)).lower()}") from e
    except UnicodeDecodeError as e:
        raise LayerError(f"{path}: not UTF-8 text (byte {e.start}): is this a TOML file?") from e
    except tomllib.TOMLDecodeError as e:
        quotes = "; a text needs quotes" if "Invalid value" in str(e) else ""
        raise LayerError(f"{path}: not valid TOML: {e}{quotes}") from e


def _find(above: Path, name: Any) -> Path:
    if not isinstance(name, str) or not name:
        raise LayerError(f"{above}: layer: expected the name or path of a TOML file, got {name!r}")
    beside = above.parent / Path(name).expanduser()
    tried = [beside, beside.with_name(f"{beside.name}.toml"), HUTCHES / f"{name}.toml"]
    if tried[1].resolve() == above.resolve():  # xpp.toml with layer = "xpp" means the hutch's
        del tried[1]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in HUTCHES.glob("*.toml"))) or "none"
    raise LayerError(f"{above}: layer: no file {name!r} beside it, no such hutch; known: {known}")


def override(text: str) -> Layer:
    """One ``a.b=value`` as a layer; the value is TOML, or a plain word standing for itself.

    Raises :class:`LayerError` when it has no ``=`` or the value is neither.
    """
    key, eq, value = (part.strip() for part in text.partition("="))
    if not eq or not key:
        raise LayerError(f"--set {text}: expected path=value, such as source.rate=120")
    try:
        data: Any = tomllib.loads(f"value = {value}")["value"] if "\n" not in value else None
    except tomllib.TOMLDecodeError as e:
        if not _PLAIN.fullmatch(value):
            raise LayerError(f"--set {text}: {value!r} is not a TOML value: {e}") from e
        data = value
    for part in reversed([p.strip("\"'") for p in re.findall(r'"[^"]*"|\'[^\']*\'|[^.]+', key)]):
        data = {part: data}
    return Layer(f"--set {text}", data)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``above`` on ``below``: tables merge key by key, everything else replaces.

    A table of another ``kind`` replaces as a whole: the keys of one kind mean nothing to another.
    """
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            replaced = value.get("kind", old.get("kind")) != old.get("kind")
            out[key] = value if replaced else merge(old, value)
        else:
            out[key] = value
    return out


def origin(layers: Sequence[Layer], path: Sequence[str | int]) -> str:
    """Name of the uppermost layer that sets ``path``, or as much of it as any layer does."""
    best, name = -1, ""
    for layer in layers:
        here: Any = layer.data
        depth = 0
        for step in path:
            try:
                here = here[step]
            except (KeyError, IndexError, TypeError):
                break
            depth += 1
        if depth >= best:
            best, name = depth, layer.name
    return name


def dump(data: Mapping[str, Any]) -> str:
    """``data`` as TOML text that reads back equal: scalars first, then tables by dotted header."""
    return "\n".join(_lines(data, "")).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], at: str) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    out = [f"\n[{at}]"] if at and (plain or not tables) else []
    out += [f"{key(k)} = {value(v)}" for k, v in plain.items()]
    for k, v in tables.items():
        out += _lines(v, f"{at}.{key(k)}" if at else key(k))
    return out


def key(name: str) -> str:
    """A key as TOML writes it: bare where it can be."""
    return name if _BARE.fullmatch(name) else value(name)


def value(of: Any) -> str:
    """``of`` as a TOML value on one line."""
    if isinstance(of, Mapping):
        return "{" + ", ".join(f"{key(k)} = {value(v)}" for k, v in of.items()) + "}"
    if isinstance(of, list | tuple):
        return "[" + ", ".join(map(value, of)) + "]"
    if isinstance(of, str):  # JSON escapes are TOML's, once surrogates and DEL are kept out
        return json.dumps(of, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(of, bool):
        return "true" if of else "false"
    return repr(of) if isinstance(of, int | float) else of.isoformat()
