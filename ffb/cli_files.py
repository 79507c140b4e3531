"""Commands about files of runs: what is in them, whether it is right, and how to mend them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffb.command import Args, Command, Parser, log, positive


def _run_file(p: Parser) -> None:
    p.add_argument("file", metavar="FILE", help="the small data of a run")


def _open_arguments(p: Parser) -> None:
    _run_file(p)
    p.add_argument("--follow", action="store_true", help="go on while the file grows")


def _refuse_deadly(file: str, marked: bool = False) -> None:
    """Raise ``OSError`` where HDF5 would crash or hang; another process finds out."""
    from ffb.writers import examine

    if damaged := examine.deadly(Path(file), marked):
        said = "; ".join(f"{name} is damaged: {what} when it was read" for name, what in damaged)
        raise OSError(f"{file}: {said}; see what 'ffb recover {file}' can restore")


def _open(args: Args) -> int:
    from ffb.service import show

    _refuse_deadly(args.file, marked=True)
    return show.small_data(args.file, args.follow)


def _audit(args: Args) -> int:
    from ffb.books import audit

    _refuse_deadly(args.file)
    return audit.audit_command(args.file)


def _verify_arguments(p: Parser) -> None:
    _run_file(p)
    p.add_argument("--view", metavar="NAME", default="", help="only this view (default: all)")
    p.add_argument("--commit", metavar="K", type=int, help="the commit shown (default: the last)")
    p.add_argument("--snapshot", metavar="PATH", help="a kept snapshot (default: the run's own)")


def _verify(args: Args) -> int:
    from ffb.live import verify

    _refuse_deadly(args.file)
    return verify.verify_command(args.file, args.view, args.commit, args.snapshot)


def _recover_arguments(p: Parser) -> None:
    p.add_argument("path", metavar="FILE|DIR", help="the file of a run, or a folder of runs")
    p.add_argument(
        "--end",
        action="store_true",
        help="also end runs that nobody will continue, so that they can be merged",
    )


def _recover(args: Args) -> int:
    from ffb.writers import recover

    log(args)
    return recover.recover_command(Path(args.path), args.end)


def _merge(args: Args) -> int:
    from ffb.writers import consolidate

    log(args)
    return consolidate.merge_command(args.file)


def _pair(text: str) -> tuple[str, str]:
    """``A=B`` from the command line."""
    a, eq, b = (part.strip().strip("/") for part in text.partition("="))
    if not eq or not a or not b:
        raise argparse.ArgumentTypeError(f"expected A=B, such as gdet=gasdet, not {text!r}")
    return a, b


def _tolerance(text: str) -> float:
    """A number of 0 or more from the command line."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


def _diff_arguments(p: Parser) -> None:
    p.add_argument("a", metavar="A", help="small data of a run, written by ffb or by others")
    p.add_argument("b", metavar="B", help="likewise")
    for name, what in (("rtol", "of the larger magnitude"), ("atol", "in the unit of the data")):
        said = f"difference that does not count, {what} (default: %(default)s)"
        p.add_argument(f"--{name}", type=_tolerance, default=0.0, metavar="X", help=said)
    p.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="datasets that do not count, such as 'epics/*'; may be repeated",
    )
    p.add_argument(
        "--map",
        metavar="A=B",
        type=_pair,
        action="append",
        default=[],
        help="what A calls A, a dataset or a group, B calls B; may be repeated",
    )
    p.add_argument(
        "--common", action="store_true", help="only datasets and shots count that both have"
    )
    p.add_argument("--quiet", action="store_true", help="show only the datasets that differ")


def _diff(args: Args) -> int:
    from ffb.configuration.problems import ConfigError
    from ffb.reading import diff
    from ffb.reading.compare import Limits

    try:
        for file in (args.a, args.b):
            _refuse_deadly(file)
    except OSError as e:
        raise ConfigError([str(e)]) from e
    limits = Limits(args.rtol, args.atol)
    options = diff.Options(limits, args.ignore, dict(args.map), args.common, args.quiet)
    return diff.diff_command(args.a, args.b, options)


def _replay_arguments(p: Parser) -> None:
    p.add_argument("capture", metavar="CAPTURE", help="the recording")
    p.add_argument("--to", metavar="ENDPOINT", required=True, help="ZMQ endpoint of an aggregator")
    p.add_argument(
        "--speed",
        type=positive,
        default=1.0,
        help="1 for the recorded pace, 10 for ten times that (default: %(default)s)",
    )


def _replay(args: Args) -> int:
    from ffb.service import replay

    log(args)
    count = replay.play(args.capture, args.to, args.speed)
    print(f"{count:,} messages sent and committed")
    return 0


COMMANDS: dict[str, Command] = {
    "replay": Command(
        "send recorded messages to an aggregator again",
        "ffb replay mfxx49820.capture --to tcp://127.0.0.1:5555 --speed 10",
        _replay_arguments,
        _replay,
    ),
    "open": Command(
        "show what a small-data file holds, even while it grows",
        "ffb open mfxx49820_Run0042.h5 --follow",
        _open_arguments,
        _open,
    ),
    "audit": Command(
        "count every shot of a run again and name whatever does not add up; 1 if anything does not",
        "ffb audit mfxx49820_Run0042.h5",
        _run_file,
        _audit,
    ),
    "verify": Command(
        "compare what the page showed at a commit with the rows of the file; 1 if they differ",
        "ffb verify mfxx49820_Run0042.h5 --view scan --commit 1200",
        _verify_arguments,
        _verify,
    ),
    "diff": Command(
        "compare two small-data files shot by shot; 1 if they differ, 2 if they cannot be compared",
        "ffb diff smalldata/xpplx1234_Run0042.h5 ours/xpplx1234_Run0042.h5 --rtol 1e-6",
        _diff_arguments,
        _diff,
    ),
    "recover": Command(
        "repair runs whose writer was killed, down to the last commit",
        "ffb recover mfxx49820_Run0042.h5 --end",
        _recover_arguments,
        _recover,
    ),
    "merge": Command(
        "make one plain file of a run that has ended, its rows in order of time",
        "ffb merge mfxx49820_Run0042.h5",
        _run_file,
        _merge,
    ),
}
