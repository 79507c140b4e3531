"""The processes of a service, composed: reduce, aggregate, dashboard, and all of them together."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ffb.aggregating.merging import Merging
from ffb.config import Config
from ffb.service.room import Room
from ffb.service.watch import watch
from ffb.source import RunInfo, Source
from ffb.supervise import Child, Supervisor, command

if TYPE_CHECKING:
    from ffb.messaging.link import Link
    from ffb.producing.heir import Resume
    from ffb.producing.produce import Producer
    from ffb.producing.ringfile import RingFile
    from ffb.writers.capture import CaptureWriter

log = logging.getLogger(__name__)

#: Seconds that a process which was told to stop has to drain, that each kind has to be gone, and
#: that an aggregator which ends by itself answers producers.
GRACE_S, STOP_S, FAREWELL_S = 2.5, 5.0, 5.0

#: Seconds between two looks whether a producer that waits for its last commits is to stop.
DRAIN_S = 0.1

#: Sent to an aggregator whose stream has ended: it ends, too, but first merges what it wrote.
FINISH = signal.SIGUSR1

#: New files and folders are for the group, too: who analyses is seldom who ran it.
UMASK = 0o002

#: Seconds of merging that are not worth a word.
SOON_S = 0.5


@contextlib.contextmanager
def stoppable(
    stop: Callable[[], None], by: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
) -> Iterator[None]:
    """Call ``stop`` on signals."""
    before = {s: signal.signal(s, lambda *_: stop()) for s in by}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reduce(
    config: Config, *, producer: str = "p0", index: int = 0, of: int = 1, once: bool = False
) -> int:
    """Read shots, reduce them, send the features; 0 when everything sent was committed.

    First of all, deliver what a killed process of the same name has left.
    """
    from ffb.producing.produce import Producer
    from ffb.sources.choose import source_of
    from ffb.transport import Link

    address, patience = config.endpoints().aggregator, config.aggregate.end_timeout_s
    connect = partial(
        Link,
        address,
        producer,
        int(config.transport.window_mb * 1e6),
        key=config.key(secret=False),
    )
    drained, told, stopped = False, False, list[bool]()
    source = source_of(config, index, of)
    with stoppable(lambda: stopped.append(True)), contextlib.closing(source):
        file, why = _ring_file(config, producer, address)
        try:
            resume, after = _inherit(file, connect, source, patience, stopped)
            with contextlib.closing(connect(file=file, after=after)) as link:
                if why:
                    link.unprotected(why)
                worker = Producer(config, source, link, producer, resume)
                with stoppable(worker.stop):
                    if stopped:
                        worker.stop()
                    try:
                        runs = worker.loop(1 if once else None)
                    finally:  # a run that failed has sent what it took, and that must arrive
                        drained = _drain(link, worker, patience)
                        told = drained and not link.promised
        finally:
            if file is not None:
                file.close(remove=told)  # else our successor tells what is there
    if not drained:
        log.error("%d messages were never acknowledged: %s", link.unacked, link.silence)
    return 0 if drained and (runs or worker.stopping) else 1


def _drain(link: Link, worker: Producer, patience_s: float) -> bool:
    """Wait until all is committed: ``patience_s`` seconds, and no more than a moment if told so."""
    end = time.monotonic() + patience_s
    while not link.drain(DRAIN_S):
        if worker.stopping:
            end = min(end, time.monotonic() + GRACE_S)
        if time.monotonic() >= end:
            return False
    return True


def _ring_file(config: Config, producer: str, address: str) -> tuple[RingFile | None, str]:
    """Where to keep what is under way, or the reason why it cannot be kept."""
    from ffb.producing.ringfile import RingError, RingFile

    if not config.transport.ring:
        return None, ""
    try:
        return RingFile(config.exp, producer, address), ""
    except RingError as e:
        return None, str(e)


def _inherit(
    file: RingFile | None,
    connect: Callable[..., Link],
    source: Source,
    patience_s: float,
    stopped: list[bool],
) -> tuple[Resume | None, int]:
    """Deliver what a killed process left; where to resume its run, and its epoch."""
    from ffb.producing.heir import deliver

    left = None if file is None else file.read()
    if left is None:
        return None, 0
    with contextlib.closing(connect(epoch=left.epoch)) as link:
        resume = deliver(
            left,
            link,
            live=source.live,
            patience_s=patience_s,
            stopping=lambda: bool(stopped),
        )
    return resume, left.epoch


def aggregate(config: Config, *, once: bool = False) -> int:
    """Merge, write, publish; 0 when the books of every run that ended balance.

    SIGTERM and SIGINT end it soon and leave large files in segments, for the next start or `ffb
    merge`, which is said on stdout; :data:`FINISH` ends it with every run in one plain file.
    """
    from ffb.aggregating.orphans import Orphans
    from ffb.aggregating.serve import Service
    from ffb.health import keep_memory
    from ffb.live.shown import Writer
    from ffb.writers.chain import Rolling
    from ffb.writers.consolidate import unfinished
    from ffb.writers.small_data import SmallData

    keep_memory()
    os.umask(UMASK)
    merging, seen = _merging(), set[Path]()
    room = Room(config.writer.reserve_gb, config.writer.warn_gb)
    orphans = Orphans(config.aggregate.end_timeout_s, command("recover", "--end"))

    def earlier(folder: Path) -> None:
        """Merge what earlier lives have left in ``folder``, and end what they left open."""
        if folder in seen:
            return
        seen.add(folder)
        orphans.look(folder)
        if config.writer.merge:
            merging.start(unfinished(folder))

    def writer(settings: Config, info: RunInfo) -> Writer:
        file, w = settings.file(info.exp, info.run), settings.writer
        earlier(file.parent)
        room.watch(file.parent)
        rolling = Rolling(w.segment_rows, w.segment_s, w.sync_s, room.kept)
        return SmallData(file.parent, file.name, rolling, merging if w.merge else None)

    def alarms() -> list[str]:
        merging.poll()
        orphans.poll(service.aggregator.open)
        return [*merging.alarms, *orphans.alarms, *room.alarms]

    service, stopped = Service(config, writer, _recorder(config), alarms), list[bool]()

    def stop() -> None:
        stopped.append(True)
        merging.leave()
        room.spend()
        service.stop()

    with stoppable(stop), stoppable(service.stop, [FINISH]):
        try:
            if config.exp:
                folder = config.file(config.exp, 1).parent
                earlier(folder)
                room.watch(folder)
            balanced = service.loop(once=once, grace_s=GRACE_S)
            if once and not stopped:
                service.farewell(FAREWELL_S)
        finally:
            service.close()
            orphans.finish(lambda: bool(stopped))
            merging.close()
    for path in merging.left:
        _tell_left(path)
    return 0 if balanced else 1


def _tell_left(path: Path) -> None:
    """Say what a stop has left for later, and who does it."""
    print(  # noqa: T201  for who started us
        f"{path.name} is complete and can be read, in segments: the next start makes one file of"
        f" it, or 'ffb merge {shlex.quote(str(path))}'",
        flush=True,
    )


def _merging() -> Merging:
    from ffb.writers import consolidate

    child = [sys.executable, "-m", consolidate.__name__]
    return Merging(partial(consolidate.merge, clear=False), consolidate.merge, child)


def _recorder(config: Config) -> CaptureWriter | None:
    """A new capture in the configured folder, named after the time it begins."""
    from ffb.writers.capture import CaptureWriter

    if not config.aggregate.capture:
        return None
    folder = config.locate(config.aggregate.capture)
    folder.mkdir(parents=True, exist_ok=True)
    return CaptureWriter(folder / f"{config.exp or 'ffb'}_{time.strftime('%Y%m%dT%H%M%S')}.ffb")


def dashboard(config: Config, *, port: int | None = None) -> int:
    """Serve the page until told to stop; says its address on stdout."""
    from ffb.dashboards.app import Dashboard

    chosen = config.dashboard.port if port is None else port
    views, key = config.endpoints().views, config.key(secret=False)
    page = Dashboard(views, config.dashboard.address, chosen, key)
    with stoppable(page.stop):
        page.run(lambda url: print(url, flush=True))  # noqa: T201  for who started us
    p50, p95 = page.model.document.percentiles(50, 95)
    log.info("shot to page p50_ms=%.0f p95_ms=%.0f", p50, p95)
    return 0


def children(config: Config, logs: Path, *, page: bool, once: bool) -> list[Child]:
    """What `ffb run` starts, in this order."""
    if config.path is None:
        raise ValueError("a configuration made in memory cannot be given to other processes")
    common = [str(config.path), *(w for o in config.overrides for w in ("--set", o))]

    def child(name: str, *words: str, keeps: bool = True) -> Child:
        return Child(name, command(*words), keeps, logs / f"{name}.log")

    of = config.run.producers
    out = [child("aggregator", "aggregate", *common)]
    if page:
        out.append(child("dashboard", "dashboard", *common))
    for k in range(of):
        words = ["reduce", *common, "--index", str(k), "--of", str(of)]
        out.append(child(f"producer-{k}", *words, *(["--once"] if once else []), keeps=False))
    return out


def run(
    config: Config,
    *,
    page: bool = True,
    once: bool = False,
    first: Callable[[Path], list[Child]] = lambda logs: [],
) -> int:
    """Start everything on this machine and keep it alive until the stream ends or Ctrl-C.

    ``first`` gives children to start before all others, such as the stream of the demo. Returns 0
    when every process ended well, which for the aggregator includes balanced books.
    """
    logs = _logs(config)
    page = page and config.run.dashboard
    supervisor = Supervisor([*first(logs), *children(config, logs, page=page, once=once)])
    stopped: list[bool] = []
    console = Console(stderr=False)
    console.print(f"logs of the processes: {logs}", highlight=False)
    with stoppable(lambda: stopped.append(True)):
        supervisor.start()
        try:
            watch(config, supervisor, console, stopped, page=page)
            if not stopped:
                _finish(supervisor, console, stopped)
        finally:
            clean = _stop(supervisor, console)
    gave_up = [c.name for c in supervisor.children if c.gave_up]
    return 0 if clean and not gave_up else 1


def _logs(config: Config) -> Path:
    """A new folder for the logs of the processes: where it is configured, or a temporary one."""
    if not config.run.logs:
        return Path(tempfile.mkdtemp(prefix="ffb-logs-"))
    name = f"{config.exp or 'ffb'}_{time.strftime('%Y%m%dT%H%M%S')}-"
    folder = config.locate(config.run.logs)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=name, dir=folder))


def _finish(supervisor: Supervisor, console: Console, stopped: Sequence[object]) -> None:
    """The stream has ended: wait for the aggregator to merge what it wrote, until stopped."""
    aggregator = supervisor.child("aggregator")
    if not aggregator.alive or aggregator.process is None:
        return
    aggregator.process.send_signal(FINISH)
    since, said = time.monotonic(), False
    while aggregator.alive and not stopped:
        if not said and time.monotonic() - since > SOON_S:
            said = True
            console.print("merging what was written; Ctrl-C leaves that for later ...")
        time.sleep(0.02)


def _stop(supervisor: Supervisor, console: Console) -> bool:
    """Stop producers, then the aggregator they drain into, then the rest; say what is left."""
    clean, aggregator = True, supervisor.child("aggregator")
    before = len(aggregator.told)
    for stage in ("producer", "stream", "aggregator", ""):
        clean &= supervisor.stop(stage, STOP_S)
    if said := aggregator.told[before:].strip():
        console.print(said, highlight=False, soft_wrap=True)
    return clean
