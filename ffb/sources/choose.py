"""The source that a configuration names."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from ffb.config import Config, FilesConfig, PsanaConfig, ReplayConfig, SyntheticConfig
from ffb.source import Source


def source_of(config: Config, producer: int = 0, producers: int = 1) -> Source:
    """Make the source of ``config`` for one of ``producers`` that share its shots.

    Raises ``FileNotFoundError`` and ``ValueError`` as the source does.
    """
    match config.source:
        case SyntheticConfig() as s:
            from ffb.sources.synthetic import Synthetic, SyntheticSource

            given = s.model_dump(exclude={"kind"})
            return SyntheticSource(Synthetic(**given, producer=producer, producers=producers))
        case PsanaConfig(shmem=tag) if tag:
            from ffb.sources.psana import Meaning
            from ffb.sources.shmem import ShmemSource

            return ShmemSource(tag, meanings=Meaning)
        case PsanaConfig() | FilesConfig() as s:
            from ffb.sources.files import FilesSource

            return FilesSource(
                [config.locate(p) for p in getattr(s, "paths", ())],
                folder=config.locate(s.dir),
                exp=s.exp,
                runs=() if s.run is None else (s.run,),
                growing=getattr(s, "live", False),
                producer=producer,
                producers=producers,
            )
        case ReplayConfig() as s:
            from ffb.sources.replay import ReplaySource

            return ReplaySource(config.locate(s.path), producer, producers)


def source_named(names: Sequence[str]) -> Source:
    """Make the source that a command line names: xtc2 files, a folder of them, or a tag.

    Raises ``FileNotFoundError`` for what looks like a path and is none.
    """
    from ffb.sources.files import FilesSource

    paths = [Path(n).expanduser() for n in names]
    if len(paths) == 1 and paths[0].is_dir():
        exps = {p.name.split("-r")[0] for p in paths[0].glob("*-r*-s*-c*.xtc2*")}
        if len(exps) == 1:
            return FilesSource(folder=paths[0], exp=exps.pop())
        return FilesSource(sorted(paths[0].glob("*.xtc2")))
    if all(p.is_file() for p in paths):
        return FilesSource(paths)
    missing = next(p for p in paths if not p.is_file())
    if len(names) > 1 or missing.suffix or missing.parent.name:
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(missing))
    from ffb.sources.psana import Meaning
    from ffb.sources.shmem import ShmemSource

    return ShmemSource(names[0], meanings=Meaning)
