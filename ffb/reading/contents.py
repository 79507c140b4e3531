"""What a small-data file holds beside the columns: names and element types, for writer and reader.

A run in the making is a chain of *file segments*, each an HDF5 file of its own in the folder
``<name>.parts`` beside ``<name>.h5``, the *master*: virtual datasets over all segments, with
relative paths. A segment holds rows of one epoch; it is written as ``seg0000.live.h5`` and becomes
``seg0000.h5`` when it is closed. The journal beside them (``journal``) is the durable truth on what
was committed. A run that has ended is merged into one plain file of the master's name, with the
same names in it, and the folder goes.

Rows, offsets into the log and the counter ``ffb/committed`` count over the whole run, in whichever
segment they stand. Rows count only up to ``ffb/committed``, however long a column is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ffb.schema import PULSE_ID, TIMESTAMP, Column, Schema

#: Version of this layout; a reader refuses what is newer than itself.
LAYOUT = 3

#: Suffix of the folder of a run's file segments, in place of the master's.
FOLDER = ".parts"

GROUP = "ffb"
#: (1,) int64: rows of the run that are whole and committed.
COMMITTED = "ffb/committed"
#: (1,) int64: 1 once the run has ended and nothing follows.
COMPLETE = "ffb/complete"
#: JSON text, in a master only: the segments in order, each a map of ``SEGMENT_KEYS``.
SEGMENTS = "ffb/segments"

#: Parameters, masks and positions, each under its detector or reducer.
USER_DATA = "UserDataCfg"
#: JSON text, in a plain file with lists: :class:`ffb.reading.lists.Flat` by column.
LISTS = "ffb/lists"

#: Group of integrating detectors, in a plain file only: see :mod:`ffb.integrating.integrated`.
INTEGRATED = "intg"

#: The group of sums of frames over shots, see :mod:`ffb.sums.datasets`; in a merged file only.
SUMS = "Sums"

#: One line a commit.
COMMITS = "ffb/commits"
#: What became of every shot: :class:`ffb.sink.Entry`, with the commit that brought it.
LEDGER = "ffb/ledger"
#: Processes that took part.
PRODUCERS = "ffb/producers"
#: Sets of columns and parameters; columns and provenance stand in the log.
EPOCHS = "ffb/epochs"
#: Steps of the scan; ``row`` is the first row of the step.
STEPS = "ffb/steps"
#: Only in a merged file whose rows were moved: where they stood in the order of their commits, a
#: line for rows that stayed together. Commit K holds the rows with a ``place`` below its ``rows``.
ORDER = "ffb/order"
#: JSON lines as bytes: the details of every commit, epoch and step, at the offsets they give.
LOG = "ffb/log"

#: Of a segment: its file's name, the run's row at which it begins, its committed rows (-1 while it
#: is being written), its epoch, its number of lines in each table before its own first one.
SEGMENT_KEYS = ("file", "first", "rows", "epoch", "tables")

_LOG = [("log", "<i8"), ("size", "<i8")]
COMMIT_DTYPE = np.dtype(
    [(k, "<i8") for k in ("commit", "rows", "time", "read", "written", "lost", "late", "not_seen")]
    + _LOG
)
LEDGER_DTYPE = np.dtype(
    [("producer", "<u2"), ("state", "S30"), ("first", "<u8"), ("last", "<u8")]
    + [(k, "<i8") for k in ("shots", "row", "commit")]
)
PRODUCER_DTYPE = np.dtype([("producer", "<u2"), ("name", "S70"), ("process", "<i8")])
EPOCH_DTYPE = np.dtype([("epoch", "<i8"), ("row", "<i8"), ("commit", "<i8"), *_LOG])
STEP_DTYPE = np.dtype([("step", "<i8"), ("row", "<i8"), *_LOG])
ORDER_DTYPE = np.dtype([("row", "<i8"), ("place", "<i8"), ("rows", "<i8")])

#: Tables that grow beside the columns: element type, and rows in a chunk.
TABLES: dict[str, tuple[np.dtype[np.void] | np.dtype[np.uint8], int]] = {
    COMMITS: (COMMIT_DTYPE, 128),
    LEDGER: (LEDGER_DTYPE, 128),
    PRODUCERS: (PRODUCER_DTYPE, 16),
    EPOCHS: (EPOCH_DTYPE, 16),
    STEPS: (STEP_DTYPE, 128),
    LOG: (np.dtype(np.uint8), 16384),
}


#: Types that columns have in a file where they are not their own. Of timestamps psana makes int64,
#: and what a notebook takes from them or shifts them by is int64, too; their bits are the same.
_STORED = {TIMESTAMP.name: "<i8"}

#: Names by which analysts look for columns that have other ones here: links, unless columns.
LINKS = {"timing/pulseId": PULSE_ID.name}

#: Unit and meaning of what is neither column nor axis; all of it is without unit.
DOCS = {
    COMMITTED: "rows of the run that are whole and committed",
    COMPLETE: "1 once the run has ended and nothing follows",
    SEGMENTS: "JSON: the files that hold the rows, in order",
    COMMITS: "a line a commit: rows and books after it, when [ns since 1970], where the log tells",
    LEDGER: "what became of every shot: intervals of shots of one producer, written or lost",
    PRODUCERS: "processes that took part, by the number in ffb/producer",
    EPOCHS: "sets of columns and parameters, the row each begins at, where the log tells of it",
    STEPS: "steps of the scan, the row each begins at, where the log tells its motors",
    ORDER: "where rows stood in the order of their commits",
    LOG: "JSON lines, as bytes: details of commits, epochs and steps",
    "ffb/config": "the configuration with all its layers and overrides, as one TOML text",
    "ffb/inputs": "JSON: the field of every input",
    "ffb/reducers": "JSON: version, hash, parameters, inputs and axes of every reducer",
    "ffb/constants": "JSON: which constants calibrated every detector",
    "ffb/versions": "JSON: versions of what took part",
    "ffb/notes": "JSON: what was remarkable, in sentences",
    LISTS: "JSON: where the entries of lists stand, by the column that held them",
    "ffb/columns": "JSON: the columns with all that is known of them",
    "ffb/schema": "the columns as producers send them, msgpack",
}


def stored(column: Column) -> np.dtype[Any]:
    """Type of a column's values in a file."""
    return np.dtype(_STORED.get(column.name, column.dtype))


def state_bytes(state: str) -> bytes:
    """State of an entry as the ledger holds it."""
    return state.encode()[: LEDGER_DTYPE["state"].itemsize]


class Shown(NamedTuple):
    """A column of a run: ``source`` is its name in the file segments of ``epochs``, which have it.

    ``column`` is as the newest of them says, under the name by which the run shows it.
    """

    column: Column
    source: str
    epochs: tuple[int, ...]


def union(schemas: Mapping[int, Schema]) -> dict[str, Shown]:
    """Columns of a run whose epochs (by number) have ``schemas``, in the order of the newest one.

    A column that changed its dtype or shape has its plain name in the newest form, and
    ``<name>_e<epoch>`` in every older one, of the newest epoch with that form. Where an epoch does
    not have a column, its rows show the missing value.
    """
    forms: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    for epoch in sorted(schemas, reverse=True):
        for c in schemas[epoch].columns:
            forms.setdefault((c.name, c.dtype, c.shape), []).append(epoch)
    out: dict[str, Shown] = {}
    plain = {name for name, _, _ in forms}
    for (source, _, _), epochs in forms.items():
        name = source
        while name in out or (name != source and name in plain):
            name += f"_e{epochs[0]}"
        column = schemas[epochs[0]].by_name[source]._replace(name=name)
        out[name] = Shown(column, source, tuple(sorted(epochs)))
    return out
