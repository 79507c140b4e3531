"""The small data of a run: a chain of HDF5 files that shows as one, and becomes one in the end.

Exports :class:`SmallData`, a sink. What is in the files: :mod:`ffb.reading.contents`; how they are
written: :mod:`ffb.writers.chain`; what becomes of them when a writer was killed:
:mod:`ffb.writers.recover`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from ffb import reader
from ffb.batch import Batch
from ffb.schema import Schema
from ffb.sink import Counts, Provenance
from ffb.source import RunInfo
from ffb.sums.piece import Parcel
from ffb.writers import consolidate, journal
from ffb.writers.chain import Begun, Chain, RefusedError, Rolling
from ffb.writers.lease import Lease
from ffb.writers.master import folder_of
from ffb.writers.recover import Healed, NeverBegunError, begun_of, heal
from ffb.writers.sums import SumFiles

log = logging.getLogger(__name__)


class SmallData:
    """A sink that writes ``<directory>/<name>``, by default ``<exp>_Run<NNNN>.h5``.

    A run that a killed writer left behind is continued; :attr:`books` and :meth:`resume` then tell
    what is in it. A file of that name that holds another run, or one that has ended, is left alone,
    and the run goes to ``<name>_2.h5``, ``_3`` and so on. ``path`` is the file being written or
    written last. ``merge`` is called with it after the end of a run, ``None`` leaves it as it is.

    :meth:`commit` raises ``OSError`` with a sentence when it cannot write; rows then wait in
    memory and the next commit writes them too, so they must not be appended again.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str = "{exp}_Run{run:04d}.h5",
        rolling: Rolling = Rolling(),  # noqa: B008 - it cannot be changed
        merge: Callable[[Path], object] | None = consolidate.merge,
    ) -> None:
        self.directory, self.name, self.rolling, self.merge = Path(directory), name, rolling, merge
        self.path: Path | None = None
        self._chain: Chain | None = None
        self._sums: SumFiles | None = None
        self._open = self._ended = False

    @property
    def rows(self) -> int:
        """Rows committed."""
        return self._chain.rows if self._chain else 0

    @property
    def books(self) -> Counts:
        """Counts at the last commit; of a run that is continued, at the last one before that."""
        return self._chain.books if self._chain else Counts()

    def begin_run(self, info: RunInfo, schema: Schema, provenance: Provenance) -> None:
        """Create the file, or continue the one that this run has already.

        Raises ``OSError`` when the directory cannot be written, has no room, or when another
        process is writing this run.
        """
        if self._open:
            raise RuntimeError(f"{self.path} is still open: end its run before the next begins")
        notes = list(provenance.notes)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path in self._candidates(info):
                lease = Lease(path)
                try:
                    if why := self._begin(path, info, schema, replace(provenance, notes=(*notes,))):
                        notes.append(f"{path.name} is left as it is: {why}")
                        log.warning("file=%s left as it is: %s", path, why)
                        continue
                finally:
                    if not self._open:
                        lease.release()
                self._lease = lease
                return
        except (PermissionError, NotADirectoryError) as e:
            why = os.strerror(e.errno or errno.EACCES)
            raise OSError(e.errno, f"{self.directory}: cannot be written: {why}") from e

    def _candidates(self, info: RunInfo) -> Iterator[Path]:
        first = self.directory / self.name.format(exp=info.exp, run=info.run)
        yield first
        for n in count(2):
            yield first.with_name(f"{first.stem}_{n}{first.suffix}")

    def _begin(self, path: Path, info: RunInfo, schema: Schema, about: Provenance) -> str:
        """Begin at ``path`` or go on there; say why, if what is there is not ours to go on with."""
        begun = Begun()
        try:
            there = _there(path, info)
        except NeverBegunError as e:
            there, about = None, replace(about, notes=(*about.notes, str(e)))
        if isinstance(there, str):
            return there
        if there is not None:
            begun = begun_of(there)
            for sentence in (*there.notes, *there.lost):
                log.warning("file=%s %s", path, sentence)
            about = replace(about, notes=(*about.notes, *there.notes, *there.lost))
        try:
            self._sums = SumFiles(folder_of(path), self.rolling.sync_s)
            self._chain = Chain(path, info, schema, about, self.rolling, begun)
        except (PermissionError, NotADirectoryError):
            raise
        except (OSError, RuntimeError) as e:
            raise OSError(getattr(e, "errno", None) or errno.EIO, f"{path}: {_brief(e)}") from e
        self.path, self._open, self._ended = path, True, False
        if there is not None:
            log.info("file=%s continued at row=%d commit=%d", path, self.rows, self.books.commit)
        return ""

    def resume(self) -> dict[tuple[str, int], int]:
        """Tell for each (producer, process) the last ``seq`` that the continued run holds.

        Empty for a new one. It is what ``Counts.producers`` of the last commit says, where all
        else is found that was said with it.
        """
        return {
            (str(p.get("producer", name)), int(p["epoch"])): int(p["seq"])
            for name, p in self.books.producers.items()
            if "epoch" in p and "seq" in p
        }

    def begin_epoch(self, epoch: int, schema: Schema, provenance: Provenance) -> None:
        """Go on with other columns or parameters, in a segment of their own; after a commit.

        Raises ``OSError`` with a sentence when it cannot be made.
        """
        chain = self._opened()
        with self._refusing():
            chain.begin_epoch(epoch, schema, provenance)

    def append(self, batch: Batch) -> None:
        """Take rows; the batch must stay as it is until committed.

        Raises ``ValueError`` when its schema is not that of the epoch.
        """
        chain = self._opened()
        if batch.schema.id != (now := chain.segment.schema).id:
            raise ValueError(
                f"a batch of schema {batch.schema.id.hex()} in a segment of schema"
                f" {now.id.hex()}: columns change with an epoch, and begin_epoch comes first"
            )
        chain.append(batch)

    def step(self, step: int, values: Mapping[str, float], docstring: str) -> None:
        """Note the values of a step; written with its first row, whichever comes first."""
        self._opened().step(step, values, docstring)

    def add(self, producer: tuple[str, int], seq: int, parcel: Parcel) -> None:
        """Keep pieces of a delta, before the commit that covers message ``seq``.

        Raises ``OSError`` with a sentence; repeat it when the cause is gone.
        """
        self._opened()
        assert self._sums is not None
        with self._refusing():
            for piece in parcel.pieces:
                self._sums.add(producer, seq, piece)

    def commit(self, counts: Counts) -> None:
        """Write all rows appended so far and let readers see them.

        Raises ``OSError`` with a sentence; repeat it when the cause is gone.
        """
        chain = self._opened()
        assert self._sums is not None
        with self._refusing():
            self._sums.sync()
            chain.commit(counts)

    def end_run(self, counts: Counts) -> None:
        """Commit, complete and close the file, so that any HDF5 tool opens it, and merge it.

        Raises ``OSError`` with a sentence; repeat it when the cause is gone. A merge that fails is
        reported in the log: the run is whole without it, and it can be made later.
        """
        if self._ended:  # and repeated, because something else failed
            return
        chain = self._opened()
        assert self._sums is not None
        with self._refusing():
            self._sums.sync(now=True)
            chain.end(counts)
        self._open, self._ended = False, True
        self._lease.release()
        if self.merge is None or self.path is None:
            return
        try:
            self.merge(self.path)
        except (OSError, RuntimeError, ValueError) as e:
            log.warning("file=%s is not merged, its segments stay: %s", self.path, e)

    def close(self) -> None:
        """Close the file as it is; unless its run has ended, it can be continued.

        Raises ``OSError`` when it cannot be left tidy; committed rows are safe even then.
        """
        if not self._open or self._chain is None:
            return
        self._open = False
        try:
            with self._refusing():
                self._chain.close()
        finally:
            self._lease.release()

    def _opened(self) -> Chain:
        if not self._open or self._chain is None:
            raise RuntimeError("no run is being written: begin_run comes first")
        return self._chain

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Say in one sentence what HDF5 says in a page."""
        try:
            yield
        except (OSError, RuntimeError) as e:
            assert self._chain is not None
            raise OSError(
                getattr(e, "errno", None) or errno.EIO,
                f"{self.path}: not written: {_brief(e)}; {self._chain.rows} rows are safe in the"
                f" file, {self._chain.waiting} wait in memory for the next commit",
            ) from e


def _there(path: Path, info: RunInfo) -> Healed | str | None:
    """What is at ``path``, whose lease we hold: a run to go on with, or why it is none."""
    folder = folder_of(path)
    if not folder.exists():
        return _plain(path, info) if path.exists() else None
    told = next(journal.read(folder / "journal"), {}) if (folder / "journal").exists() else {}
    if told.get("kind") == "run" and _info(told) != info:
        return _other(_info(told))
    try:
        healed = heal(path)
    except NeverBegunError:
        raise
    except FileNotFoundError as e:  # a writer was killed while it began
        return f"it cannot be continued ({e})" if path.exists() else None
    except ValueError as e:
        return f"it cannot be continued ({e})"
    if healed.info != info:
        return _other(healed.info)
    return "it is complete" if healed.complete else healed


def _plain(path: Path, info: RunInfo) -> str:
    """Why a file without segments is none to go on with."""
    try:
        with reader.open(path) as run:
            return _other(run.info) if run.info != info else "it is complete"
    except (OSError, ValueError) as e:
        return f"it cannot be continued ({e})"


def _other(info: RunInfo) -> str:
    return f"it holds {info.exp} run {info.run} begun at {info.began}"


def _info(told: Mapping[str, Any]) -> RunInfo:
    return RunInfo(str(told["exp"]), int(told["run"]), int(told["began"]))


def _brief(error: OSError | RuntimeError) -> str:
    """What went wrong, in our words or the system's; HDF5's fill a page."""
    number = getattr(error, "errno", None) or errno.EIO
    return str(error.args[1]) if isinstance(error, RefusedError) else os.strerror(number)
