"""``ffb import-config``: a production configuration of smalldata_tools as a file of ours."""

from __future__ import annotations

import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ffb import config
from ffb.configuration import layers
from ffb.configuration.problems import ConfigError
from ffb.migrate.given import Remark
from ffb.migrate.prod_config import Draft, Imported, translate

#: Columns of comments.
WIDTH = 98


def import_command(path: str, exp: str, out: str) -> int:
    """Write the TOML to the file ``out``, or to stdout; 0 if it is complete, 1 if it is not.

    What was left out stands at its head and goes to stderr. Raises ``ConfigError`` where the file
    cannot be read or ``out`` is there already.
    """
    source = Path(path)
    try:
        found = translate(source.read_text("utf-8"), source.name, exp)
        text = toml(found, source.name)
        if out:
            with Path(out).open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError as e:
        raise ConfigError([f"{out} is there already, and is not replaced"]) from e
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise ConfigError([f"{path}: {why.lower() if isinstance(e, OSError) else why}"]) from e
    if not out:
        sys.stdout.write(text)
    for remark in found.remarks:
        sys.stderr.write(f"{source.name}{_line(remark)}\n")
    return 0 if found.complete else 1


def _line(remark: Remark) -> str:
    kind = "left out" if remark.lost else "check"
    line = f"{remark.line}:" if remark.line else ""
    return f":{line} {kind}: {remark.text}"


def toml(found: Imported, name: str) -> str:
    """The file; raises ``ConfigError`` if ours would not load."""
    lines = [f"# Imported from {name}, which was read and not run.", "#"]
    for heading, lost in (("Left out", True), ("To be checked", False)):
        if some := [r for r in found.remarks if r.lost is lost]:
            lines.append(f"# {heading}, by lines of {name}:")
            lines += [text for r in some for text in _comment(r)]
            lines.append("#")
    lines += [f"# Then: ffb check THIS.toml --run {_some_run(found)}", ""]
    if found.layer:
        lines += [f"layer = {layers.value(found.layer)}", ""]
    lines += ["[source]", 'kind = "psana"', f"exp = {layers.value(found.exp)}"]
    lines += ['shmem = "psana0"', ""]
    lines += _tables("inputs", found.inputs) + _tables("epics", found.epics)
    lines += _tables("sums", found.sums) + _tables("integrating", found.integrating)
    for title, table in found.derived.items():
        lines += [f"[derived.{layers.key(title)}]", *_items(table), ""]
    for title, draft in found.reducers.items():
        lines += _reducer(title, draft)
    text = "\n".join(lines).rstrip("\n") + "\n"
    config.parse(tomllib.loads(text))
    return text


def _comment(remark: Remark) -> list[str]:
    head = f"#   {remark.line or '-':>4}  "
    return textwrap.wrap(
        " ".join(remark.text.split()),
        WIDTH,
        initial_indent=head,
        subsequent_indent=f"#{' ' * (len(head) - 1)}",
        break_on_hyphens=False,
    )


def _some_run(found: Imported) -> int:
    return max((d.rows[-1].runs.first for d in found.reducers.values()), default=1)


def _tables(name: str, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not entries:
        return []
    return [
        f"[{name}]",
        *(f"{layers.key(k)} = {layers.value(v)}" for k, v in entries.items()),
        "",
    ]


def _items(table: Mapping[str, Any]) -> Iterator[str]:
    return (f"{layers.key(k)} = {layers.value(v)}" for k, v in table.items())


def _reducer(name: str, draft: Draft) -> list[str]:
    title = f"reducers.{layers.key(name)}"
    lines = [
        f"[{title}]",
        f"use = {layers.value(draft.use)}",
        f"inputs = {layers.value(draft.input)}",
        "",
    ]
    if _all_runs(draft):
        return [*lines[:-1], f"params = {layers.value(draft.rows[0].params)}", ""]
    for row in draft.rows:
        lines += [f"[[{title}.params]]", f"runs = {layers.value(str(row.runs))}"]
        lines += [*_items(row.params), ""]
    return lines


def _all_runs(draft: Draft) -> bool:
    return [(r.runs.first, r.runs.last) for r in draft.rows] == [(1, None)]
