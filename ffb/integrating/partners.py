"""Which columns are an integrating detector's own, which are gathered over its exposures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.configuration.problems import Problem, nearest
from ffb.schema import CORE, LASER, VALID, XRAY, Column

#: Columns in which a number is a name and no amount: their sum means nothing.
NAMES = ({c.name for c in CORE} - {XRAY.name, LASER.name}, ("timing/*", "damage/*_state"))

#: What is written of every partner, between its group and its field, and what it is.
STATISTICS = {
    "n": "shots with a value of",
    "sum": "sum over shots of",
    "mean": "mean over shots of",
    "var": "variance over shots, about their mean, of",
    "rms": "root mean square deviation from their mean of",
}


class Choice(NamedTuple):
    """Columns of an integrating detector: its ``own``, and its ``partners``.

    ``flags`` tells of each the column that says in which rows it holds, where there is one.
    """

    own: tuple[Column, ...]
    partners: tuple[Column, ...]
    flags: Mapping[str, str]


def statistic_name(column: str, statistic: str) -> str:
    """Name of a partner's dataset: ``gasdet_sum_f11`` of ``gasdet/f11``, as smalldata_tools has it.

    Of a column in no group it is ``<column>_<statistic>``.
    """
    group, slash, field = column.partition("/")
    return f"{group}_{statistic}_{field.replace('/', '_')}" if slash else f"{column}_{statistic}"


def own_name(detector: str, column: str) -> str:
    """Name of a dataset with the detector's own values: ``full_sum`` of ``andor/full_sum``."""
    return column.removeprefix(f"{detector}/").replace("/", "_")


def choose(name: str, settings: IntegratingConfig, columns: Iterable[Column]) -> Choice:
    """Columns of the integrating detector ``name``, in their own order.

    Lists are neither: they are to be found by the timestamps of exposures.
    """
    known = {c.name: c for c in columns}
    flags = {n: f for n, c in known.items() for f in c.flags if f in known and f != n}
    flagging = {*flags.values(), *(n for n in known if n.endswith(VALID))}
    flat = {n: c for n, c in known.items() if c.dtype[1] in "biuf" and not c.length}
    for n in [n for n in flat if _is_former(n, known) and flat[n].dtype[1] != "f"]:
        if n not in flags:  # 0 where it was not a column, and nothing says so
            del flat[n]
    own = _matching(settings.frames or (f"{name}/*",), flat)
    values = [n for n in flat if n not in own and n not in flagging and not _is_name(n)]
    if settings.partners:
        chosen = _matching(settings.partners, values)
    else:
        chosen = [n for n in values if not flat[n].shape]
    return Choice(tuple(flat[n] for n in own), tuple(flat[n] for n in chosen), flags)


def _is_former(column: str, known: Collection[str]) -> bool:
    """Whether it is what a column was before an epoch in which its dtype or shape changed."""
    stem, found, number = column.rpartition("_e")
    return bool(found) and number.isdecimal() and stem in known


def _is_name(column: str) -> bool:
    return column in NAMES[0] or any(fnmatchcase(column, p) for p in NAMES[1])


def _matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    return [n for n in names if any(fnmatchcase(n, p) for p in patterns)]


def check(
    detectors: Mapping[str, IntegratingConfig], columns: Iterable[Column]
) -> Iterator[Problem]:
    """What is wrong with integrating detectors of a run that has ``columns``."""
    known = [*columns]
    for name, settings in detectors.items():
        at, choice = ("integrating", name), choose(name, settings, known)
        if "/" in name:
            yield Problem(at, "a detector's name has no slash; say by frames which are its columns")
        for i, pattern in enumerate(settings.frames):
            if not choose(name, IntegratingConfig(frames=(pattern,)), known).own:
                yield Problem((*at, "frames", i), _no_match(pattern, "lists and texts", known))
        if not choice.own and not settings.frames:
            text = f"no column begins with {name}/; name its reducers or inputs so"
            yield Problem((*at, "frames"), f"{text}, or say which columns are its own")
        elif choice.own and not any(_tells(c, choice) for c in choice.own):
            yield Problem((*at, "frames"), "none of its columns says in which shots it holds")
        names = Counter(own_name(name, c.name) for c in choice.own)
        names.update(statistic_name(c.name, s) for c in choice.partners for s in STATISTICS)
        for twice in sorted(n for n, times in names.items() if times > 1):
            yield Problem(at, f"two columns would be written as intg/{name}/{twice}; rename one")


def lacking(
    detectors: Mapping[str, IntegratingConfig], columns: Iterable[Column]
) -> Iterator[Problem]:
    """Partners that a run does not have, which is not an error."""
    known = [*columns]
    for name, settings in detectors.items():
        for i, pattern in enumerate(settings.partners):
            alone = settings.model_copy(update={"partners": (pattern,)})
            if not choose(name, alone, known).partners:
                text = _no_match(pattern, "columns that cannot be added up", known)
                yield Problem(("integrating", name, "partners", i), text)


def _tells(column: Column, choice: Choice) -> bool:
    """Whether a column says in which shots there was a frame."""
    return column.dtype[1] == "f" or column.name in {*choice.flags, *choice.flags.values()}


def _no_match(pattern: str, what: str, known: Iterable[Column]) -> str:
    if any(fnmatchcase(c.name, pattern) for c in known):
        return f"only {what} match {pattern!r}"
    names = [c.name for c in known]
    parts = (n.partition("/") for n in names)
    groups = dict.fromkeys(f"{group}/*" if slash else group for group, slash, _ in parts)
    near = get_close_matches(pattern, [*groups, *names], 1)
    return f"no column matches {pattern!r}; {nearest(pattern, near or [*groups])}"
