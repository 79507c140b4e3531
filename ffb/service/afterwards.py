"""The small data of a run from its xtc2 files, afterwards: in one process, or in several ranks.

Every rank takes a share of the shots, by a hash of the timestamp, and sends what it makes of them
as any producer does. Rank 0 writes the file as well. It ends its own part of the run last, when all
others have ended theirs or are known to be dead; what those left undone stands in the file as lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ffb.aggregating.attendance import NORMAL_END
from ffb.config import Config, load
from ffb.configuration import layers
from ffb.configuration.sites import find_xtc
from ffb.messaging.link import Link
from ffb.producing.produce import Producer
from ffb.reading.contents import FOLDER
from ffb.schema import Schema
from ffb.service import meeting
from ffb.service.processes import GRACE_S, UMASK, stoppable
from ffb.service.ranks import Rank
from ffb.service.roll import RankService, name_of
from ffb.service.room import Room
from ffb.source import RunInfo
from ffb.sources.choose import source_of
from ffb.sources.files import FilesSource
from ffb.sources.plain import share
from ffb.wire import Body, Header
from ffb.writers.chain import Rolling
from ffb.writers.consolidate import merge
from ffb.writers.small_data import SmallData

log = logging.getLogger(__name__)

#: Rows may wait so long for slower ranks: whoever died is not waited for. A run lasts so long
#: without a word of anybody.
HORIZON_S, SILENCE_S = 86_400.0, 600.0

#: Seconds that ranks have at most to take note of the end.
FAREWELL_S = 5.0

#: Megabytes of uncommitted batches of all ranks together, and of one of many.
WINDOWS_MB, LEAST_MB = 1024.0, 8.0


def configuration(
    exp: str, run: int, file: str = "", overrides: Sequence[str] = (), dir: str = "", out: str = ""
) -> Config:
    """Configure the making of one run from its files.

    ``file`` is the experiment's configuration, that of its hutch where there is none; ``dir`` holds
    the xtc2 files, which are else looked for at the known sites; ``out`` is the folder of the file,
    else the configuration's. Raises ``ConfigError``, and ``FileNotFoundError`` without files.
    """
    hutch = exp[:3]
    if not file:
        file = str(layers.HUTCHES / f"{hutch}.toml")
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"there are no defaults for {hutch}: name the experiment's file with --config"
            )
    folder = Path(dir).expanduser().resolve() if dir else find_xtc(exp, hutch, run)
    source = {"kind": "files", "exp": exp, "dir": str(folder), "run": run, "paths": []}
    more = [f"source={layers.value(source)}"]
    if out:
        plain = str(Path(out).expanduser().resolve()).replace("{", "{{").replace("}", "}}")
        more.append(f"writer.directory={layers.value(plain)}")
    return load(file, [*overrides, *more])


def make(config: Config, rank: Rank, say: Callable[[str], None]) -> int:
    """Make the file of the run that the source of ``config`` names, as one rank of several.

    Returns 0 when every shot of the files is accounted for and nothing of the run is missing for a
    reason of ours. ``say`` takes lines of progress, of rank 0 alone. Raises ``FileExistsError``
    where the run has a file already.
    """
    source = source_of(config, rank.number, rank.of)
    if not isinstance(source, FilesSource):
        raise ValueError("only a run in files can be made afterwards")
    run = source.numbers[0]
    file, patience_s = config.file(config.exp, run), config.aggregate.end_timeout_s
    os.umask(UMASK)
    with contextlib.closing(source), meeting.sockets() as near:
        if rank.number:
            return _follow(config, rank, source, file, patience_s)
        refuse_existing(file)
        room = Room(config.writer.reserve_gb, config.writer.warn_gb)
        room.refuse(file.parent)
        with meeting.held(file) as folder:
            where = meeting.place(folder, near, rank)
            settings = _tuned(config, where, f"ipc://{near}/views", rank)
            service = RankService(
                settings, partial(_writer, room), rank.of, patience_s, lambda: source.progress, say
            )
            if rank.of > 1:
                meeting.invite(folder, rank, service.hub.address)
            ranks = f"{rank.of} ranks" if rank.of > 1 else "one process"
            say(f"{config.exp} run {run}: {source.folder} -> {file}, in {ranks}")
            return _lead(settings, rank, source, service, patience_s, say)


def refuse_existing(file: Path) -> None:
    """Raise ``FileExistsError`` where there is anything of the run already, whole or in parts."""
    for there in (file, file.with_name(f"{file.stem}{FOLDER}")):
        if there.exists():
            raise FileExistsError(
                f"{there} is there already, and is never overwritten: name another folder with"
                " -o, or move it away"
            )


def _tuned(config: Config, where: meeting.Place, views: str, rank: Rank) -> Config:
    """Settings for shots that can wait and be read again."""
    window = min(config.transport.window_mb, max(LEAST_MB, WINDOWS_MB / rank.of))
    transport = {"aggregator": where.address, "views": views, "window_mb": window, "ring": False}
    keys = {"public_key": where.public_key, "secret_key": where.secret_key}
    aggregate = {"horizon_ms": HORIZON_S * 1e3, "end_timeout_s": SILENCE_S}
    return config.model_copy(
        update={
            "transport": config.transport.model_copy(update=transport | keys),
            "aggregate": config.aggregate.model_copy(update=aggregate),
            "run": config.run.model_copy(update={"producers": rank.of}),
        }
    )


def _writer(room: Room, config: Config, info: RunInfo) -> SmallData:
    file, w = config.file(info.exp, info.run), config.writer
    rolling = Rolling(w.segment_rows, w.segment_s, w.sync_s, room.kept)
    return SmallData(file.parent, file.name, rolling, merge if w.merge else None)


class PatientLink(Link):
    """A link to an aggregator that must not be away for long: another one will not come.

    ``last`` is called before the end of a run is told.
    """

    def __init__(
        self,
        config: Config,
        address: str,
        rank: Rank,
        patience_s: float,
        last: Callable[[], None] = lambda: None,
    ) -> None:
        window, key = int(config.transport.window_mb * 1e6), config.key(secret=False)
        super().__init__(address, name_of(rank.number), window, key=key)
        self._patience_s, self._last = patience_s, last
        self._there = time.monotonic()

    def pump(self, timeout_s: float = 0.0) -> None:
        """See :meth:`ffb.messaging.link.Link.pump`; ``ConnectionError`` when nobody is there."""
        super().pump(timeout_s)
        now = time.monotonic()
        if self.connected:
            self._there = now
        elif now - self._there > self._patience_s:
            raise ConnectionError(f"{self.producer}: rank 0 has gone; what it wrote is in its file")

    def send(self, header: Header, schema: Schema | None, body: Body, place: int = 0) -> int:
        """See :meth:`ffb.messaging.link.Link.send`."""
        if header.kind == "end_run":
            self._last()
        return super().send(header, schema, body, place)

    def settle(self, stopping: Callable[[], bool]) -> bool:
        """Wait until everything is committed, however long others take; False if stopped."""
        end = 0.0
        while self.unacked:
            self.pump(0.05)
            if stopping():
                end = end or time.monotonic() + GRACE_S
                if time.monotonic() > end:
                    return False
        return True


def _follow(config: Config, rank: Rank, source: FilesSource, file: Path, patience_s: float) -> int:
    stopped = list[bool]()
    with stoppable(lambda: stopped.append(True)):
        where = meeting.meet(file, rank, patience_s, lambda: bool(stopped))
    settings = _tuned(config, where, "", rank)
    with contextlib.closing(PatientLink(settings, where.address, rank, patience_s)) as link:
        worker = Producer(settings, source, link, name_of(rank.number))
        with stoppable(worker.stop):
            runs = worker.loop(1)
            settled = link.settle(lambda: worker.stopping)
    return 0 if runs and settled and not worker.stopping else 1


def _lead(
    config: Config,
    rank: Rank,
    source: FilesSource,
    service: RankService,
    patience_s: float,
    say: Callable[[str], None],
) -> int:
    began, shots = time.monotonic(), array("Q")
    if rank.of > 1:
        source.on_shot = partial(_note, shots)
    last = Last(service, rank, shots)
    address = service.hub.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  it listens there
    with _serving(service, last) as served:
        with contextlib.closing(PatientLink(config, address, rank, patience_s, last)) as link:
            worker = last.worker = Producer(config, source, link, name_of(0))
            last.link = link
            with stoppable(worker.stop):
                if not worker.loop(1):
                    service.stop()
                link.settle(lambda: worker.stopping)
        balanced = served.result()
    return _verdict(service, balanced, time.monotonic() - began, say)


def _note(shots: array[int], stamp: int) -> None:
    """Note a shot; one that comes twice in a row counts once, as for who reduces it."""
    if not shots or shots[-1] != stamp:
        shots.append(stamp)


class Last:
    """Lets rank 0 speak last: waits for the others, and enters as lost what the dead left."""

    def __init__(self, service: RankService, rank: Rank, shots: Sequence[int]) -> None:
        self.service, self.rank, self.shots = service, rank, shots
        self.worker: Producer | None = None
        self.link: PatientLink | None = None

    def __call__(self) -> None:
        """Wait, and enter."""
        self._wait(lambda: not self.service.waiting)
        for producer in self.service.dead:
            index = self.service.others.index(producer) + 1
            mine = share(index, self.rank.of)
            entered = self.service.miss(producer, [s for s in self.shots if mine(s)])
            self._wait(entered.done)

    def stop(self) -> None:
        """Stop rank 0's own work; safe in another thread."""
        if self.worker is not None:
            self.worker.stop()

    def _wait(self, done: Callable[[], bool]) -> None:
        """Stay alive in the eyes of the aggregator until it is ``done``, or we are to stop."""
        assert self.link is not None
        assert self.worker is not None
        told, end = 0.0, 0.0
        while not done():
            self.link.pump(0.02)
            now = time.monotonic()
            if now - told > 1:
                told = now
                self.link.status({"pid": os.getpid(), "doing": "waiting for other ranks"})
            if self.worker.stopping:
                end = end or now + GRACE_S
                if now > end:
                    return


@contextlib.contextmanager
def _serving(service: RankService, last: Last) -> Iterator[Future[bool]]:
    """Run the aggregator in a thread of its own; when it fails, rank 0 stops its work."""

    def loop() -> bool:
        try:
            balanced = service.loop(once=True, grace_s=GRACE_S)
            service.farewell(FAREWELL_S)
            return balanced
        except BaseException:
            last.stop()
            raise
        finally:
            service.close()

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(loop)
        try:
            yield served
        finally:
            if not served.done():
                service.stop()


def _verdict(
    service: RankService, balanced: bool, seconds: float, say: Callable[[str], None]
) -> int:
    """Say what became of the run, and whether all of it is there."""
    if not service.aggregator.closed:
        say("nothing was written")
        return 1
    info, counts, problems, _ = service.aggregator.closed[-1]
    lost = ", ".join(f"{n:,} {reason}" for reason, n in counts.lost.items() if n)
    say(
        f"{info.exp} run {info.run}: read = written + lost: {counts.read:,} ="
        f" {counts.written:,} + {sum(counts.lost.values()):,}{f' ({lost})' if lost else ''}"
        f" in {seconds:.1f} s, {counts.written / seconds:,.0f} shots/s"
    )
    whole = counts.ended == NORMAL_END and not service.dead
    if not whole:
        who = f"; dead: {', '.join(service.dead)}" if service.dead else ""
        say(f"the run is NOT whole: {counts.ended}{who}")
    for problem in problems:
        say(f"the books do not balance: {problem}")
    return 0 if balanced and whole else 1
