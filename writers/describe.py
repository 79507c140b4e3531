"""Say in a file what everything in it is: units, meaning, origin, axes and texts.

Every dataset has the attributes ``unit`` and ``doc``; a column also has ``dims``, ``source`` (the
fields of detectors that it was made from), ``reducer`` and ``version`` (of that reducer). Where
rows of whole numbers may be absent, ``<name>_valid`` beside them says so: a column, or a link to
the one that says it of all features of a reducer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from ffb.reading import contents, lists
from ffb.reading.lists import Flat
from ffb.schema import VALID, Column, Schema, column_name
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo

#: What stands in the file as JSON text under its own name.
_TEXTS = ("inputs", "reducers", "constants", "versions")


#: Attributes of the group ``ffb`` that the end of the run overwrites in place.
AT_END: dict[str, Any] = {
    "ended": np.bytes_(bytes(128)),
    "read": np.int64(0),
    "written": np.int64(0),
    "late": np.int64(0),
    "duplicates": np.int64(0),
    "not_seen": np.int64(0),
    "lost": np.bytes_(bytes(1024)),
    "balanced": np.bool_(False),
}


def describe(
    file: h5py.File,
    info: RunInfo,
    schema: Schema,
    provenance: Provenance,
    flat: Mapping[str, Flat] = MappingProxyType({}),
) -> None:
    """Say what everything is: attributes, axes and texts; the columns are there.

    Those in ``flat`` stand end to end.
    """
    names = schema.by_name
    for column in schema.columns:
        if column.name in flat:
            _describe_list(file, flat[column.name], column, provenance)
            continue
        _describe(file[column.name], column, provenance)
        if valid := _flag(column, names):
            file[column.name].attrs["valid"] = valid
    _create_coordinates(file, (c for c in schema.columns if c.name not in flat), provenance)
    _link(file, schema, flat)
    group = file.require_group(contents.GROUP)
    texts = {
        "config": provenance.config,
        **{k: to_json(getattr(provenance, k)) for k in _TEXTS},
        "notes": to_json(provenance.notes),
        "columns": to_json([c._asdict() for c in schema.columns]),
        **({"lists": lists.written(flat)} if flat else {}),
    }
    for name, text in texts.items():
        group.create_dataset(name, data=text, dtype=h5py.string_dtype())
    group.create_dataset("schema", data=np.frombuffer(schema.packed, np.uint8))
    document(file)
    about = {"exp": info.exp, "run": info.run, "began": np.uint64(info.began)}
    about |= {"host": provenance.host, "command": provenance.command, "schema_id": schema.id.hex()}
    for key, value in (about | {"layout": contents.LAYOUT} | AT_END).items():
        group.attrs[key] = value


def document(file: h5py.File) -> None:
    """Say of what is neither column nor axis what it means."""
    for name, doc in contents.DOCS.items():
        if name in file:
            file[name].attrs["unit"], file[name].attrs["doc"] = "1", doc


def _describe(dataset: h5py.Dataset, column: Column, provenance: Provenance) -> None:
    made = provenance.reducers.get(column.reducer, {})
    made = made if isinstance(made, Mapping) else {}
    for key, value in {
        "unit": column.unit,
        "doc": column.doc or column.name,
        "dims": ["shot", *column.dims],
        "source": _source(column, made, provenance),
        "reducer": column.reducer,
        "version": str(made.get("version", "")),
        **({"expr": str(made["expr"])} if "expr" in made else {}),
        **({"length": column.length} if column.length else {}),
    }.items():
        dataset.attrs[key] = value
    for i, dim in enumerate(["shot", *column.dims]):
        dataset.dims[i].label = dim


def _describe_list(file: h5py.File, flat: Flat, column: Column, provenance: Provenance) -> None:
    """Say of a list what it is, and which entries are whose."""
    data, group = file[flat.values], flat.lengths.removesuffix("_len")
    entry, *dims = column.dims or ("entry",)
    _describe(data, column._replace(length=flat.lengths, dims=()), provenance)
    data.attrs["offsets"], data.attrs["dims"] = flat.offsets, [entry, *dims]
    for i, dim in enumerate([entry, *dims]):
        data.dims[i].label = dim
    for name, dims, doc in (
        (flat.lengths, ["shot"], f"entries of a shot in {group}, at most {flat.room}"),
        (flat.offsets, ["bound"], f"shot i has entries offsets[i] to offsets[i + 1] of {group}"),
    ):
        count = Column(name, "<i8", doc=doc, reducer=column.reducer)
        _describe(file[name], count, provenance)
        file[name].attrs["dims"], file[name].dims[0].label = dims, dims[0]


def _source(column: Column, made: Mapping[str, Any], provenance: Provenance) -> str:
    """Fields of detectors, and names of columns, from which a column was made."""
    taken = made.get("inputs", {})
    names = [*(taken.values() if isinstance(taken, Mapping) else taken)]
    if not column.reducer:
        names = [column.name.removesuffix(VALID)]
    known = dict.fromkeys(str(provenance.inputs.get(n, n)) for n in names)
    return ", ".join(k for k in known if column.reducer or k != names[0]) or "ffb"


def _flag(column: Column, names: Mapping[str, Column]) -> str:
    """Name of the column that says in which rows ``column`` holds, ``""`` if none does."""
    return next((f for f in column.flags if f in names and f != column.name), "")


def _link(file: h5py.File, schema: Schema, flat: Mapping[str, Flat]) -> None:
    """Put ``_valid`` beside whole numbers that may be absent, and the names that analysts know."""
    links = {
        f"{c.name}{VALID}": flag
        for c in schema.columns
        if c.dtype[1] in "iub" and c.name not in flat and (flag := _flag(c, schema.by_name))
    }
    for alias, name in contents.LINKS.items():
        links |= {f"{alias}{end}": f"{name}{end}" for end in ("", VALID)}
    for alias, name in links.items():
        if alias not in file and name in file:
            file[alias] = h5py.SoftLink(f"/{name}")


def _create_coordinates(file: h5py.File, columns: Iterable[Column], provenance: Provenance) -> None:
    """Write the axes that reducers declare beside their features, as dimension scales."""
    for name, made in provenance.reducers.items():
        coords = made.get("coords", {}) if isinstance(made, Mapping) else {}
        for dim, axis in coords.items():
            path = column_name(name, dim)
            if path in file:  # a feature of that name is the better axis
                continue
            scale = file.create_dataset(path, data=np.asarray(axis["values"]))
            scale.attrs["unit"] = str(axis.get("unit", "1"))
            scale.attrs["doc"] = f"{dim} of the features of {name}"
            scale.make_scale(dim)
            for column in columns:
                for i, its in enumerate(column.dims):
                    if (column.reducer, its, column.shape[i : i + 1]) == (name, dim, scale.shape):
                        file[column.name].dims[i + 1].attach_scale(scale)


def set_end(file: h5py.File, counts: Counts) -> None:
    """Write the books where a person looks for them, the attributes of the group ``ffb``."""
    lost = sum(counts.lost.values())
    text = to_json(counts.lost).encode()
    values = {
        "ended": np.bytes_(counts.ended.encode()[:128]),
        "read": np.int64(counts.read),
        "written": np.int64(counts.written),
        "late": np.int64(counts.late),
        "duplicates": np.int64(counts.duplicates),
        "not_seen": np.int64(counts.not_seen),
        "lost": np.bytes_(text if len(text) <= 1024 else b'{"see": "ffb/ledger"}'),
        "balanced": np.bool_(counts.read == counts.written + lost),
    }
    for key, value in values.items():
        file[contents.GROUP].attrs.modify(key, value)


def to_json(data: Any) -> str:
    """Render plain data, with numpy's scalars and arrays, as JSON text."""
    return json.dumps(data, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not plain data: {value!r}")
