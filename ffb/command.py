"""A subcommand of ``ffb``, and what several of them need."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

Args = argparse.Namespace
Parser = argparse.ArgumentParser


@dataclass(frozen=True)
class Command:
    """A subcommand: its help, one example, its arguments, and what it does."""

    summary: str
    example: str
    arguments: Callable[[Parser], None]
    act: Callable[[Args], int]


def positive(text: str) -> float:
    """A number above 0 from the command line."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def log(args: Args, level: str = "warning", **context: object) -> None:
    """Log to stderr from ``level`` on, unless the command line says another one."""
    from ffb.health import log_to_stderr

    log_to_stderr(args.log_level or level, context)
