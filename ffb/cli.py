"""The command line: ``ffb COMMAND``; what a command does is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffb import __version__, cli_files
from ffb.command import Args, Command, Parser, log, positive

if TYPE_CHECKING:
    from ffb.config import Config

#: Exit status of a command that failed, and of one that was asked for something wrong.
FAILED, WRONG = 1, 2

EPILOG = "exit status: 0 done; 1 failed; 2 the command line or the configuration is wrong"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command].act(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        if args.debug:
            raise
        return complain(e)


def complain(error: Exception) -> int:
    """Say on stderr what went wrong, a line for each problem."""
    problems: Sequence[str] | None = getattr(error, "problems", None)
    if problems is not None:
        lines, status = list(problems), WRONG
    elif isinstance(error, OSError) and error.filename:
        lines, status = [f"{error.filename}: {(error.strerror or str(error)).lower()}"], FAILED
    else:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = " ".join(str(said).split()) or "no more is known; try --debug"
        ours = isinstance(error, ValueError | LookupError | OSError)
        lines, status = [text if ours else f"{type(error).__name__}: {text}"], FAILED
    for line in lines:
        print(f"ffb: {line}", file=sys.stderr)
    return status


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="ffb",
        epilog=EPILOG,
        description=(
            "Reduce, file and show every shot of an X-ray free-electron laser while it runs."
        ),
    )
    top.add_argument("--version", action="version", version=f"ffb {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example: {command.example}",
        )
        command.arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.add_argument(
            "--log-level",
            choices=("debug", "info", "warning", "error"),
            help="what to log on stderr (default: info for a process of its own, else warning)",
        )
    return top


def _file(p: Parser) -> None:
    p.add_argument("file", metavar="FILE", help="the experiment's TOML file")
    _overrides(p)


def _overrides(p: Parser) -> None:
    p.add_argument(
        "--set",
        dest="overrides",
        metavar="A.B=VALUE",
        action="append",
        default=[],
        help="override a key of the file; may be repeated",
    )


def _run_file(p: Parser, text: str) -> None:
    p.add_argument("--run-file", metavar="XTC2", nargs="+", default=[], help=text)


def _load(args: Args) -> Config:
    from ffb.config import load

    return load(args.file, args.overrides)


def _demo_arguments(p: Parser) -> None:
    p.add_argument(
        "--rate", type=positive, default=120.0, help="shots per second (default: %(default)s)"
    )
    p.add_argument(
        "--seconds", type=positive, default=30.0, help="length of the run (default: %(default)s)"
    )
    p.add_argument("--no-page", action="store_true", help="do not serve the page")
    p.add_argument("--out", metavar="DIR", help="folder for the file (default: a temporary one)")
    p.add_argument("--port", type=int, default=0, help="port of the page (default: a free one)")


def _demo(args: Args) -> int:
    from ffb.service import demo

    log(args)
    return demo.main(args)


def _run(args: Args) -> int:
    from ffb.service import processes

    log(args)
    return processes.run(_load(args), page=not args.no_page, once=args.once)


def _run_arguments(p: Parser) -> None:
    _file(p)
    p.add_argument("--no-page", action="store_true", help="do not serve the page")
    p.add_argument("--once", action="store_true", help="end after one run")


def _reduce_arguments(p: Parser) -> None:
    p.add_argument("file", metavar="FILE", nargs="?", help="the experiment's TOML file")
    _overrides(p)
    again = p.add_argument_group(
        "from files", "make the file of a run afterwards; in parallel: mpirun -n 4 ffb reduce ..."
    )
    again.add_argument(
        "--files", metavar=("EXP", "RUN"), nargs=2, help="the run to read from its xtc2 files"
    )
    again.add_argument(
        "--config",
        metavar="FILE",
        default="",
        help="the experiment's TOML file (default: its hutch's)",
    )
    again.add_argument(
        "--dir",
        default="",
        help="folder with the xtc2 files (default: looked for where the facility keeps them)",
    )
    again.add_argument(
        "-o", "--out", metavar="DIR", default="", help="folder of the file (default: the TOML's)"
    )
    p.add_argument("--producer", metavar="NAME", default="", help="name in logs and books")
    p.add_argument(
        "--index", type=int, default=0, metavar="K", help="which of N producers this is, from 0"
    )
    p.add_argument("--of", type=int, default=1, metavar="N", help="how many share the stream")
    p.add_argument("--once", action="store_true", help="end after one run")


def _reduce(args: Args) -> int:
    from ffb.config import ConfigError

    if args.files:
        return _reduce_files(args)
    if not args.file or args.config or args.dir or args.out:
        wrong = "reduce needs FILE, or --files EXP RUN; the latter takes --config, --dir and -o"
        raise ConfigError([wrong])
    from ffb.service import processes

    name = args.producer or f"p{args.index}"
    if not 0 <= args.index < args.of:
        raise ValueError(f"--index {args.index} is not among 0..{args.of - 1} (--of {args.of})")
    config = _load(args)
    log(args, "info", exp=config.exp, producer=name)
    return processes.reduce(config, producer=name, index=args.index, of=args.of, once=args.once)


def _reduce_files(args: Args) -> int:
    from ffb.config import ConfigError
    from ffb.service import afterwards
    from ffb.service.ranks import rank_of

    exp, run = args.files
    if not run.isdecimal():
        raise ConfigError([f"--files EXP RUN: a run is a number, not {run!r}"])
    if args.file and args.config:
        raise ConfigError(["one file of the experiment is enough: leave out --config"])
    rank, file = rank_of(os.environ), args.config or args.file or ""
    config = afterwards.configuration(exp, int(run), file, args.overrides, args.dir, args.out)
    # all ranks find the same; what is wrong with one of them alone is an error
    log(args, "error" if rank.number else "warning", exp=exp, run=run, rank=rank.number)
    return afterwards.make(config, rank, lambda line: print(line, flush=True))


def _aggregate_arguments(p: Parser) -> None:
    _file(p)
    p.add_argument("--once", action="store_true", help="end after one run")


def _aggregate(args: Args) -> int:
    from ffb.service import processes

    config = _load(args)
    log(args, "info")
    return processes.aggregate(config, once=args.once)


def _dashboard_arguments(p: Parser) -> None:
    _file(p)
    p.add_argument("--port", type=int, help="port of the page (default: the file's)")


def _dashboard(args: Args) -> int:
    from ffb.service import processes

    config = _load(args)
    log(args, "info", exp=config.exp)
    return processes.dashboard(config, port=args.port)


def _check_arguments(p: Parser) -> None:
    _file(p)
    p.add_argument("--run", type=int, metavar="N", help="the run whose parameters are wanted")
    _run_file(p, "check against the run in these files instead of the configured source")
    p.add_argument(
        "--attach",
        action="store_true",
        help="take shots from the DAQ's shared memory; other readers do not get those",
    )


def _check(args: Args) -> int:
    from ffb.service import check

    log(args)
    return check.main(args.file, args.overrides, args.run, args.run_file, args.attach)


def _import_arguments(p: Parser) -> None:
    p.add_argument("file", metavar="FILE", help="prod_config_<hutch>.py; it is read, never run")
    p.add_argument("--exp", metavar="EXP", default="", help="the experiment, such as mfxx49820")
    p.add_argument("--out", metavar="TOML", default="", help="the new file (default: stdout)")


def _import(args: Args) -> int:
    from ffb.migrate import import_config

    log(args)
    return import_config.import_command(args.file, args.exp, args.out)


def _schema(args: Args) -> int:
    import json

    from ffb.config import Config

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | Config.model_json_schema(), indent=2))
    return 0


def _reducers(args: Args) -> int:
    if args.cost:
        from ffb.service import cost

        log(args)
        return cost.main(args.cost, args.overrides, args.run_file)
    from ffb.service import show

    return show.reducer(args.name) if args.name else show.reducers()


def _reducers_arguments(p: Parser) -> None:
    p.add_argument("name", metavar="NAME", nargs="?", help="the reducer to show in detail")
    p.add_argument(
        "--cost",
        metavar="FILE",
        help="measure what every reducer of an experiment's TOML file costs on this machine",
    )
    _overrides(p)
    _run_file(p, "measure on the shots in these files instead of the configured source")


def _detnames(args: Args) -> int:
    from ffb.service import show

    log(args)
    return show.detnames(args.source)


def _detnames_arguments(p: Parser) -> None:
    p.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="xtc2 files, a folder of them, or the tag of the DAQ's shared memory",
    )


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "fabricate a run, stream it through psana, and process it on this machine",
        "ffb demo --seconds 20 --no-page",
        _demo_arguments,
        _demo,
    ),
    "run": Command(
        "start all processes of an experiment on this machine and keep them alive",
        "ffb run mfxx49820.toml",
        _run_arguments,
        _run,
    ),
    "reduce": Command(
        "read shots, reduce them, and send the features to the aggregator",
        "ffb reduce mfxx49820.toml --index 0 --of 4",
        _reduce_arguments,
        _reduce,
    ),
    "aggregate": Command(
        "merge what the producers send, write the file, and publish what was committed",
        "ffb aggregate mfxx49820.toml",
        _aggregate_arguments,
        _aggregate,
    ),
    "dashboard": Command(
        "serve the page",
        "ffb dashboard mfxx49820.toml --port 5006",
        _dashboard_arguments,
        _dashboard,
    ),
    "check": Command(
        "find everything that is wrong with a configuration, and print the columns of a run",
        "ffb check mfxx49820.toml --run 42",
        _check_arguments,
        _check,
    ),
    "import-config": Command(
        "write the TOML of a production config of smalldata_tools; 1 if something was left out",
        "ffb import-config prod_config_mfx.py --exp mfxx49820 --out mfxx49820.toml",
        _import_arguments,
        _import,
    ),
    "schema": Command(
        "print the JSON Schema of the configuration, for editors",
        "ffb schema > ffb.schema.json",
        lambda p: None,
        _schema,
    ),
    "reducers": Command(
        "list the reducers, show one with an example, or measure what those of a file cost",
        "ffb reducers roi",
        _reducers_arguments,
        _reducers,
    ),
    "detnames": Command(
        "list the detectors and fields of a run",
        "ffb detnames mfxx49820-r0042-s000-c000.xtc2",
        _detnames_arguments,
        _detnames,
    ),
    **cli_files.COMMANDS,
}

if __name__ == "__main__":
    sys.exit(main())
