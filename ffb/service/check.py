"""``ffb check``: everything that is wrong with a configuration, and the columns of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

from ffb.config import Config, ConfigError, FilesConfig, PsanaConfig, SyntheticConfig, load
from ffb.configuration.by_run import for_run
from ffb.integrating.partners import choose
from ffb.plan import Plan
from ffb.service import show
from ffb.service.room import Room
from ffb.service.terminal import console
from ffb.source import Run, RunInfo
from ffb.sources.choose import source_of

#: Seconds to wait for a run that the source ought to have.
PATIENCE_S = 10.0

UNCHECKED = "not checked: detectors, constants and shapes, because"


def main(
    file: str, overrides: Sequence[str], run: int | None, run_files: Sequence[str], attach: bool
) -> int:
    """Check ``file`` and print the columns it makes of a run; returns the exit status.

    ``run`` says for which run the parameters are wanted. ``run_files`` take the place of the
    configured source, under that number. Shared memory is left alone unless ``attach``: whoever
    else reads it goes without the shots taken here. Raises :class:`ffb.config.ConfigError`.
    """
    config = load(file, overrides)
    problems = [] if run is None else list(_without_tables(config, run))
    if problems:
        raise ConfigError(problems)
    exp = config.exp
    config = config.model_copy(update={"source": source_at(config, run, run_files)})
    out = console()
    shut = _shut(config, exp, run) if exp else []
    if shut:
        out.print(f"warning: {shut[0]}", soft_wrap=True)
    if isinstance(config.source, PsanaConfig) and config.source.shmem and not attach:
        out.print(f"{file}: nothing wrong so far")
        out.print(f"{UNCHECKED} shared memory is left alone; try --run-file or --attach")
        return 0
    began = time.monotonic()
    source = source_of(config)
    timer = Timer(PATIENCE_S, source.stop)
    timer.start()
    try:
        for found in source.runs():
            with out.status("reading constants, compiling what was not compiled here before ..."):
                plan = Plan.make(config, found if run is None else Renumbered(found, run))
            number = found.info.run if run is None else run
            out.print(f"{found.info.exp} run {number}", style="bold")
            out.print(show.columns(plan.schema.columns))
            for name, asked in config.integrating.items():
                out.print(show.integrating(name, choose(name, asked, plan.schema.columns)))
            if exp not in {"", found.info.exp}:
                out.print(f"warning: source.exp: {exp!r}, but this run is of {found.info.exp!r}")
            for note in plan.notes:
                out.print(f"{'warning' if note in plan.warnings else 'note'}: {note}")
            for name in [n for n in config.inputs if n not in plan.block.inputs]:
                out.print(f"note: inputs.{name}: nothing takes it; record = true makes it a column")
            took = time.monotonic() - began
            lacks = f", {n} warnings" if (n := len(plan.warnings) + len(shut)) else ""
            out.print(f"{file}: nothing wrong{lacks}; read, compiled and dry run in {took:.1f} s")
            return 0
    finally:
        timer.cancel()
        source.close()
    out.print(f"{UNCHECKED} no run came within {PATIENCE_S:.0f} s")
    return 1


def _shut(config: Config, exp: str, run: int | None) -> list[str]:
    """Why no file could be written now where those of ``exp`` go; empty if one could be."""
    try:
        Room(config.writer.reserve_gb, config.writer.warn_gb).refuse(
            config.file(exp, run or 1).parent
        )
    except OSError as e:
        return [str(e.strerror)]
    return []


def _without_tables(config: Config, run: int) -> Iterator[str]:
    """What gives nothing for ``run``: parameters, calibrations, photons."""
    for name, reducer in config.reducers.items():
        try:
            if not reducer.function:
                reducer.params_for(run)
        except LookupError as e:
            yield f"reducers.{name}.params: {e}"
    detectors = {i.detector for i in config.inputs.values()}
    tables = {
        **{f"calibration.{d}": c for d, c in config.calibration.items() if d in detectors},
        **{f"photons.{n}": p for n, p in config.photons.items()},
    }
    for where, given in tables.items():
        try:
            if given != "none":
                for_run(given, run)
        except LookupError as e:
            yield f"{where}: {e}"


def source_at(config: Config, run: int | None, files: Sequence[str]) -> Any:
    """What to read: the files given, or the configured source at ``run``."""
    if files:
        return FilesConfig(kind="files", paths=tuple(str(Path(f).absolute()) for f in files))
    source = config.source
    if run is None:
        return source
    if isinstance(source, SyntheticConfig):
        return source.model_copy(update={"run": run})
    has_runs = isinstance(source, PsanaConfig | FilesConfig) and source.dir
    return source.model_copy(update={"run": run}) if has_runs else source


class Renumbered:
    """A run under another number, so that its layout can stand in for a run yet to come."""

    def __init__(self, run: Run, number: int) -> None:
        self._run = run
        self.info: RunInfo = replace(run.info, run=number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)
