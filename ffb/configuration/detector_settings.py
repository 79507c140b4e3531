"""Tables of the file that say what is recorded of every run: whole detectors, slow values.

A *kind* (``kinds.toml``) describes the detectors of one make: their fields under the names that
analysts know, with units. A hutch's file lists its detectors by kind.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ffb.configuration import layers
from ffb.configuration.conditions import DerivedConfig
from ffb.configuration.settings import Count, List, Table

#: Descriptions of detectors by kind.
KINDS = Path(__file__).parents[1] / "kinds.toml"


def _group(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"expected letters, digits and _, a letter first, got {value!r}")
    return value


Group = Annotated[str, AfterValidator(_group)]


class FieldConfig(Table):
    """A field of a detector. Its key is a name, or a pattern such as "base_*" for several."""

    name: str = ""
    """Name of its column in the detector's group; without it, the field's own name."""
    unit: str = "1"
    """Unit of the values."""
    doc: str = ""
    """What it is, in a few words; `*` stands for what the pattern's did."""
    shape: List[Count] | None = None
    """Shape of an array, so that it need not be learnt from the first shots."""
    room: Count | None = None
    """Room for the entries of an array whose length changes, or for the bytes of a text."""
    unpack: bool = False
    """Whether to record the bits of its words, lowest first, each as a number 0 or 1."""
    record: bool = True
    """Whether to record it."""


class KindConfig(Table):
    """What the detectors of one kind have in common."""

    doc: str
    """What they are, in a few words."""
    like: str = ""
    """A kind further up, all of which holds for this one too unless it says otherwise."""
    algs: List[str] = ("raw",)
    """Interfaces of psana whose fields are recorded. With several, those of each but the first
    must be told apart by the names that `fields` gives them."""
    rest: bool = True
    """Whether fields that are not listed are recorded as well."""
    fields: dict[str, FieldConfig] = Field(default_factory=dict)
    """Fields by their name, with the interface in front where it is not the first of `algs`."""
    computed: dict[str, DerivedConfig] = Field(default_factory=dict)
    """Columns computed of the others of the same detector, which are called self.NAME."""


class DetectorConfig(Table):
    """A detector that is recorded whole, in the group of the file that its key names."""

    detector: str = ""
    """Detector as the DAQ names it; without it, the name of the group."""
    kind: str = ""
    """What it is, such as "gmd"; without it, all fields of `raw` are recorded."""
    record: bool = True
    """False takes away what a layer below has listed."""
    fields: dict[str, FieldConfig] = Field(default_factory=dict)
    """Fields that its kind does not describe, or not as they are here."""
    computed: dict[str, DerivedConfig] = Field(default_factory=dict)
    """Columns computed of the others of this detector, which are called self.NAME: channels with
    names of their own, as `diode = { expr = "self.ch03 * 2.5 - 0.1", unit = "V" }`."""

    def described(self) -> KindConfig:
        """Its kind, with what is different here: keys of a field that are not given stay."""
        kind = kinds()[self.kind] if self.kind else KindConfig(doc="fields as the DAQ names them")
        fields = dict(self.fields)
        for name, field in kind.fields.items():
            given = {k: getattr(self.fields[name], k) for k in _given(self.fields.get(name))}
            fields[name] = field.model_copy(update=given)
        computed = kind.computed | self.computed
        return kind.model_copy(update={"fields": fields, "computed": computed})


def _given(field: FieldConfig | None) -> set[str]:
    return field.model_fields_set if field is not None else set()


class EpicsConfig(Table):
    """A slow-control value, recorded with every shot."""

    pv: str = ""
    """Process variable, or the DAQ's alias of it; without it, the key."""
    unit: str = "1"
    """Unit of the value."""
    doc: str = ""
    """What it is, in a few words."""
    room: Count | None = None
    """Room for the bytes of a text; those known by the DAQ's alias have some without it."""
    group: Group = "epicsUser"
    """Group of the file that holds it."""
    record: bool = True
    """False takes away what a layer below has listed."""


Detectors = dict[Group, DetectorConfig]
SlowValues = dict[str, EpicsConfig]


@cache
def kinds() -> Mapping[str, KindConfig]:
    """Kinds of detectors by name."""
    tables: dict[str, Any] = {}
    for name, table in tomllib.loads(KINDS.read_text("utf-8")).items():
        tables[name] = layers.merge(tables.get(table.get("like", ""), {}), table)
    return {name: KindConfig.model_validate(table) for name, table in tables.items()}


def misnamed(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Detectors in a configuration, plain data, whose kind there is not; and that kind."""
    tables = data.get("detectors")
    for group, table in tables.items() if isinstance(tables, Mapping) else ():
        kind = table.get("kind", "") if isinstance(table, Mapping) else ""
        if isinstance(kind, str) and kind and kind not in kinds():
            yield group, kind
