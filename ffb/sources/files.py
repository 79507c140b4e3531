"""xtc2 files as a source: single files, an experiment's folder, and files that still grow.

Only the data files are read, one after the other and forward; psana's smalldata index is not
needed: a header tells how far the next one is. Growing files are looked at every 10 ms, so a shot
is seen tens of milliseconds after the DAQ wrote it. A run's streams are taken as complete when
the list of its files has not changed for ``settle`` seconds and each of them holds a Configure
and a BeginRun. When a growing run counts as over is told by :class:`ffb.sources.streams.Merge`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ffb.shot import Field, Input
from ffb.source import RunInfo
from ffb.sources.dgram_run import DgramRun, prepare
from ffb.sources.dgram_shot import Moment
from ffb.sources.dgram_shot import Stream as Moments
from ffb.sources.gather import Dgrams
from ffb.sources.plain import Stop, share
from ffb.sources.psana import Meaning
from ffb.sources.streams import Merge, Stream, kind_of
from ffb.sources.xtc2 import Buffer, timestamp
from ffb.sources.xtc2_specs import Service

log = logging.getLogger(__name__)

#: Seconds between two looks at growing files, and at the list of files.
POLL, LIST_POLL = 0.01, 0.1

_NAME = re.compile(
    r"(?P<exp>\w+)-r(?P<run>\d+)-s(?P<stream>\d+)-c(?P<chunk>\d+)\.xtc2(\.inprogress)?"
)


class FilesSource:
    """Runs from xtc2 files.

    Either ``paths``, each a stream of runs of its own, or ``folder`` with the files of ``exp``
    named ``<exp>-r<run>-s<stream>-c000.xtc2``. ``runs`` says which; without it come all that are
    there, or, with ``growing``, the newest and every one that appears after it. Further files of
    a stream (``-c001``) are found by the one before them. Of several producers each gets its
    share of the shots, by timestamp, and every step; of a large shot that is another's it reads
    the header.

    Raises ``FileNotFoundError`` where nothing is and nothing can come, ``ValueError`` for files
    that hold no run.
    """

    #: The shots are on disk: they can wait.
    live = False

    #: Is told the timestamp of every shot that is read, whose ever it is; set it before the runs.
    on_shot: Callable[[int], None] | None = None

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        *,
        folder: str | Path = "",
        exp: str = "",
        runs: Sequence[int] = (),
        growing: bool = False,
        grace: float = 60.0,
        settle: float = 1.0,
        producer: int = 0,
        producers: int = 1,
    ) -> None:
        self.paths = [Path(p) for p in paths]
        self.folder, self.exp, self.numbers = Path(folder), exp, list(runs)
        self.growing, self.grace, self.settle = growing, grace, settle
        self._mine = share(producer, producers)
        self._shared = producers > 1
        self._stop = Stop()
        self._merge: Merge | None = None

    def runs(self) -> Iterator[FileRun]:
        """Yield one run after the other."""
        if self.growing:
            prepare(Meaning)
        if self.paths:
            for path in self.paths:
                yield from self._read([path], lambda: True)
            return
        for number in self._each_number():
            paths = self._streams_of(number)
            if paths:
                yield from self._read(paths, partial(self._is_old, number))

    @property
    def progress(self) -> float:
        """How much of the files of the run was read, from 0 to 1."""
        return self._merge.progress if self._merge is not None else 0.0

    def stop(self) -> None:
        """End the run at the next shot and come to no other."""
        self._stop.set()

    def close(self) -> None:
        """Stop and close the files."""
        self._stop.set()
        if self._merge is not None:
            self._merge.close()
            self._merge = None

    def _read(self, paths: list[Path], superseded: Callable[[], bool]) -> Iterator[FileRun]:
        streams = [Stream(p) for p in paths]
        self._merge = Merge(streams, self.growing, self.grace, superseded)
        mine = self._mine if self._shared else None
        reader = Reader(self._merge, self._stop, mine, self.on_shot)
        runs = 0
        while begin := reader.begin():
            runs += 1
            yield FileRun(reader, begin, self._info(paths[0]))
            if not self.paths:
                break
            reader.finish()
        # not in a `finally`: whoever drops this generator may still be reading the run
        reader.merge.close()
        if not (runs or self._stop.is_set()):
            self._no_run(paths, reader.merge.notes)

    def _no_run(self, paths: list[Path], notes: list[str]) -> None:
        names = ", ".join(p.name for p in paths)
        sentence = f"no run can be read from {names}: {'; '.join(notes) or 'no BeginRun'}"
        if not self.growing:
            raise ValueError(sentence)
        log.warning(sentence)

    def _info(self, path: Path) -> RunInfo:
        """Experiment and run by the name of the file, for a BeginRun that does not tell them."""
        m = _NAME.fullmatch(path.name)
        return RunInfo(m["exp"], int(m["run"])) if m else RunInfo(self.exp, 0)

    def _found(self) -> dict[int, dict[int, Path]]:
        """Files of the experiment by run and stream."""
        found: dict[int, dict[int, Path]] = {}
        for path in sorted(self.folder.glob(f"{self.exp}-r*.xtc2*")):
            m = _NAME.fullmatch(path.name)
            if m is not None and not int(m["chunk"]):
                found.setdefault(int(m["run"]), {})[int(m["stream"])] = path
        return found

    def _is_old(self, number: int) -> bool:
        """Whether a later run than ``number`` has begun."""
        return max(self._found(), default=0) > number

    def _each_number(self) -> Iterator[int]:
        """Give the numbers of the runs to read; of growing ones, those that appear as well."""
        found = self._found()
        if not self.growing:
            wrong = [n for n in self.numbers if n not in found]
            if wrong or not found:
                which = f"{self.exp} run {wrong[0]}" if wrong else self.exp
                raise FileNotFoundError(
                    f"no files of {which} in {self.folder}; of that experiment there are"
                    f" {f'runs {sorted(found)}' if found else 'none'}"
                )
            yield from self.numbers or sorted(found)
            return
        if self.numbers:
            yield from self.numbers
            return
        if not found:
            log.info("files: waiting exp=%s folder=%s", self.exp, self.folder)
        last = max(found, default=1) - 1
        while not self._stop.is_set():
            later = [n for n in self._found() if n > last]
            if later:
                last = min(later)
                yield last
            else:
                self._stop.wait(LIST_POLL)

    def _streams_of(self, number: int) -> list[Path]:
        """Files of a run, once no other stream is expected; empty when stopped."""
        listed: dict[int, Path] = {}
        since = time.monotonic()
        while not self._stop.is_set():
            now = self._found().get(number, {})
            if now.keys() != listed.keys():
                since = time.monotonic()
            listed = now
            if listed and (not self.growing or time.monotonic() - since >= self.settle):
                return [listed[k] for k in sorted(listed)]
            self._stop.wait(POLL if listed else LIST_POLL)
        return []


class FileRun(DgramRun):
    """A run in files; it reads no stream that holds nothing of what is bound.

    Without a timing system, which is in every shot, it reads them all.
    """

    def __init__(self, reader: Reader, begin: Sequence[Buffer | None], named: RunInfo) -> None:
        configures = reader.merge.configures
        data, live = [c.data for c in configures], reader.merge.live
        super().__init__(data, begin, reader.moments(), Meaning, live, reader.mine)
        self._merge, self._reader = reader.merge, reader
        self._merge_notes = reader.merge.notes
        if not (self.info.exp and self.info.run):
            self.info = RunInfo(named.exp, named.run, self.info.began)

    def bind(
        self,
        fields: Mapping[str, Field],
        shapes: Mapping[str, tuple[int, ...]],
        rooms: Mapping[str, int] | None = None,
        spare: Collection[str] = (),
    ) -> tuple[dict[str, Input], list[str]]:
        """See :meth:`ffb.source.Run.bind`."""
        bound = super().bind(fields, shapes, rooms, spare)
        self._merge.only(self.streams)
        self._reader.share()
        return bound

    @property
    def notes(self) -> list[str]:
        """See :attr:`ffb.source.Run.notes`."""
        return [*super().notes, *self._merge_notes]


class Reader:
    """Reads run after run from merged streams.

    ``mine`` tells by its timestamp whether a shot is wanted, ``None`` if all are; ``on_shot`` is
    told of every one. Of the others nothing is read once :meth:`share` was called: what a run
    learns from its first shots has to be the same for every producer.
    """

    def __init__(
        self,
        merge: Merge,
        stop: Stop,
        mine: Callable[[int], bool] | None,
        on_shot: Callable[[int], None] | None = None,
    ) -> None:
        self.merge, self.mine, self._stop, self._on_shot = merge, mine, stop, on_shot

    def share(self) -> None:
        """Read no more than the headers of other producers' shots until the next run."""
        for stream in self.merge.streams:
            stream.mine = self.mine

    def begin(self) -> list[Buffer | None]:
        """Read up to the next BeginRun of all streams; gives it, nothing if there is none."""
        if not self.merge.again():
            return []
        for stream in self.merge.streams:
            stream.mine = None
        while not (self._stop.is_set() or self.merge.over):
            dgrams = self.merge.take()
            if dgrams is None:
                self._stop.wait(POLL)
            elif _kind(dgrams) == Service.CONFIGURE:
                self.merge.configure(dgrams)
            elif _kind(dgrams) == Service.BEGIN_RUN:
                kept = self.merge.keep_configured(dgrams)
                return [d if d is None else d.tobytes() for d in kept]
        return []

    def moments(self) -> Moments:
        """Give the shots and transitions of a run, ``None`` when nothing came for a while."""
        while not self._stop.is_set():
            dgrams = self.merge.take()
            if dgrams is None:
                if self.merge.over:
                    return self.merge.why
                self._stop.wait(POLL)
                yield None
                continue
            kind = _kind(dgrams)
            stamp = next(timestamp(d.data) for d in dgrams if d is not None)
            if kind in (Service.CONFIGURE, Service.BEGIN_RUN):
                self.merge.put_back()
                return "no EndRun: another run began"
            if self._on_shot is not None and kind == Service.L1_ACCEPT:
                self._on_shot(stamp)
            # of a shot with another producer there may be no more than headers
            if kind != Service.L1_ACCEPT or self._whole(stamp):
                yield Moment(kind, stamp, dgrams)
        return "stopped"

    def _whole(self, stamp: int) -> bool:
        """Whether the shot at ``stamp`` was read."""
        return all(s.mine is None or s.mine(stamp) for s in self.merge.streams)

    def finish(self) -> None:
        """Go to the end of the run, whatever of it was read."""
        while not (self._stop.is_set() or self.merge.over):
            dgrams = self.merge.take()
            if dgrams is None:
                self._stop.wait(POLL)
            elif _kind(dgrams) in (Service.CONFIGURE, Service.BEGIN_RUN):
                self.merge.put_back()
                return


def _kind(dgrams: Dgrams) -> int:
    return next(kind_of(d) for d in dgrams if d is not None)
