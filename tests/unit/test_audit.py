"""An audit finds nothing in good files, and names every kind of corruption in bad ones."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ffb.books.audit import audit
from ffb.writers.h5clear import lookup3
from tests.unit.booked import LOST, NAME, SLOW, UNSEEN, Told, write_plain, write_segments

#: Tables whose lines have details in the log.
LOGGED = ("commits", "epochs", "steps")

SEGMENT = f"{Path(NAME).stem}.parts/seg0001.h5"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, Path]:
    """Good runs by kind: merged, in segments, and growing."""
    folder = tmp_path_factory.mktemp("good")
    kinds: dict[str, Callable[[Path], Path]] = {
        "plain": lambda p: write_plain(p, Told()),
        "segments": lambda p: write_segments(p, Told()),
        "growing": lambda p: write_segments(p, Told(ended=False), live=True),
    }
    for kind, write in kinds.items():
        (folder / kind).mkdir()
        write(folder / kind)
    return {kind: folder / kind for kind in kinds}


@pytest.fixture
def copy(good, tmp_path) -> Callable[[str], Path]:
    def _copy(kind: str) -> Path:
        return shutil.copytree(good[kind], tmp_path / "copy") / NAME

    return _copy


@pytest.mark.parametrize("kind", ["plain", "segments", "growing"])
def test_a_good_run_balances(good, kind):
    report = audit(good[kind] / NAME)
    assert report.problems == []
    assert report.balanced
    assert report.counts.lost == {"backpressure": 2, "damaged": 1, "producer died": 1}
    assert sum(report.counts.lost.values()) == len(LOST)
    assert report.counts.late == len(SLOW)
    assert report.counts.not_seen == len(UNSEEN)
    assert report.complete == (kind != "growing")


def test_a_step_that_ended_before_its_first_shot_is_at_no_row(copy):
    path = copy("plain")
    with h5py.File(path, "r+") as file:
        line = file["ffb/steps"][-1]
        line["step"], line["row"] = 9, -1
        file["ffb/steps"].resize((len(file["ffb/steps"]) + 1,))
        file["ffb/steps"][-1] = line
    assert audit(path).problems == []


# -- corruption ----------------------------------------------------------------------------------


def at(name: str, rows: Any, value: Any, key: str = "") -> Callable[[Path], None]:
    """A corruption that puts ``value`` into some lines of a dataset, or into one field of them."""

    def corrupt(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            data = file[name][()]
            target = data[key] if key else data
            target[rows] = value(target) if callable(value) else value
            file[name][...] = data

    return corrupt


def again(name: str, row: int) -> Callable[[Path], None]:
    """A corruption that overwrites a row of a dataset with the one before it."""
    return at(name, row, lambda values: values[row - 1])


def swapped(name: str, row: int) -> Callable[[Path], None]:
    return at(name, [row, row + 1], lambda values: values[[row + 1, row]])


def without(name: str, line: int) -> Callable[[Path], None]:
    """A corruption that drops a line of a table."""

    def corrupt(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            data = np.delete(file[name][()], line, axis=0)
            file[name].resize(data.shape)
            file[name][...] = data

    return corrupt


def attribute(key: str, value: Any) -> Callable[[Path], None]:
    def corrupt(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["ffb"].attrs[key] = value

    return corrupt


def books(change: Callable[[dict[str, Any]], None], line: int = -1) -> Callable[[Path], None]:
    """A corruption of what the log says of a commit; it stays as long as it was."""

    def corrupt(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            commit = file["ffb/commits"][line]
            begin = min(int(file[f"ffb/{k}"]["log"][0]) for k in LOGGED if len(file[f"ffb/{k}"]))
            where = slice(commit["log"] - begin, commit["log"] - begin + commit["size"])
            said = json.loads(bytes(file["ffb/log"][where]))
            change(said)
            text = json.dumps(said, separators=(",", ":")).encode().ljust(commit["size"] - 1)
            file["ffb/log"][where] = np.frombuffer(text + b"\n", np.uint8)

    return corrupt


def account(name: str, **more: Any) -> Callable[[Path], None]:
    return books(lambda said: said["producers"][name].update(more))


#: Corruption of a merged file, and the words by which the audit must name it.
PLAIN = {
    "a shot written twice": (again("timestamp", 50), "duplicate keys: row 50"),
    "rows out of order": (swapped("timestamp", 60), "order: row 61: 1 times the timestamp"),
    "a row of nobody": (at("ffb/producer", 80, 9), "producers: row 80: .* producer 9"),
    "a row of another producer": (at("ffb/producer", 90, lambda v: 1 - v[90]), "written: .*p0"),
    "an unknown epoch": (at("ffb/epoch", 100, 7), "epochs: row 100: .* not listed"),
    "a wrong epoch": (at("ffb/epoch", 2, 1), "epochs: epoch 1: .* begins at row 2$"),
    "late forgotten": (at("ffb/late", slice(None), False), "late: commit .*: 0 rows .* 16 in"),
    "late invented": (at("ffb/late", 5, True), "order: row 5: .*flagged late and newer"),
    "kept zero": (at("ffb/kept", 7, 0.0), "kept: row 7: .* of 0"),
    "kept NaN": (at("ffb/kept", 7, np.nan), "kept: row 7: .* of nan"),
    "kept above one": (at("ffb/kept", [7, 9], 1.5), "kept: rows 7, 9: 2 rows .* 1.5"),
    "an unknown step": (at("step", 30, 5), "steps: row 30: .* not listed"),
    "a step beyond": (at("ffb/steps", 1, 999, "row"), "steps: step 1: .* row 999 of 392"),
    "a step nowhere": (at("ffb/steps", 1, -1, "row"), "steps: step 1: .* row -1 of 392"),
    "pulse ids moved": (at("pulse_id", slice(200, None), lambda v: v[200:] + 70), "not seen: .*14"),
    "committed too many": (at("ffb/committed", 0, 380), "commits: .* the counter says 380"),
    "complete forgotten": (at("ffb/complete", 0, 0), "complete: : the run is not complete"),
    "a commit back in rows": (
        at("ffb/commits", 4, 100, "rows"),
        "commits: .* goes from 128 to 100",
    ),
    "a commit twice": (again("ffb/commits", 4), "commits: commit 4: commit goes from 4 to 4"),
    "a commit gone": (without("ffb/commits", 3), "commits: commit 5: commit goes from 3 to 5"),
    "a commit's read": (at("ffb/commits", 6, 300, "read"), "commits: commit 7: read is 300"),
    "a commit's lost": (
        at("ffb/commits", -1, 5, "lost"),
        "commits: .*lost is 5 in the table and 4",
    ),
    "a commit's late": (at("ffb/commits", -1, 3, "late"), "late: .*16 rows .* 3 in the books"),
    "a commit's not seen": (at("ffb/commits", -1, 9, "not_seen"), "not seen: .*4 .*, the books 9"),
    "read more": (books(lambda b: b.update(read=500)), "balance: commit .*: read: 500 in all"),
    "a shot in flight": (account("p0", read=300), "balance: commit .*, p0: .* unaccounted for"),
    "fewer read": (account("p1", read=3), "balance: commit .*, p1: .* more than were read"),
    "a loss untold": (account("p0", lost={}), "ledger: p0, backpressure: 1 .* 0 in the books"),
    "a producer renamed": (
        account("p1", producer="px"),
        "producers: px: process 222 .* not listed",
    ),
    "duplicates told": (
        books(lambda b: b.update(duplicates=2)),
        "duplicate keys: : .* there are n",
    ),
    "an older epoch told": (
        books(lambda b: b.update(epoch=0)),
        "epochs: : .* epoch 1, the books of",
    ),
    "an entry gone": (without("ffb/ledger", 0), "ledger: p[01]: .*rows lie in no entry"),
    "an entry twice": (again("ffb/ledger", 1), "ledger: p[01]"),
    "an entry grown": (
        at("ffb/ledger", -1, lambda v: v[-1] + 1, "shots"),
        "ledger: p[01]: entries o",
    ),
    "an entry elsewhere": (at("ffb/ledger", -1, 0, "row"), "ledger: p1: .*does not begin at row 0"),
    "an entry too long": (
        at("ffb/ledger", 0, lambda v: v[-1], "last"),
        "ledger: p[01]: .*rows from",
    ),
    "another reason": (
        at("ffb/ledger", slice(None), lambda v: np.where(v == b"damaged", b"disk", v), "state"),
        "ledger: p1, disk: 1 shots lost in entries, 0 in",
    ),
    "a loss too many": (
        at("ffb/ledger", slice(None), lambda v: v + (v == 1), "shots"),
        "ledger: commit 1: 4 shots lost in entries so far, 2",
    ),
    "an entry from nowhere": (at("ffb/ledger", 0, 99, "commit"), "ledger: : .* commit 99, which"),
    "two names for one": (again("ffb/producers", 1), "producers: : two lines .* producer"),
    "the order of commits": (at("ffb/order", 0, 3, "place"), "order: ffb/order: .*every row once"),
    "its own summary": (attribute("read", 1), r"attributes: ffb.attrs\['read'\]: 1, in the last"),
    "closed out of balance": (attribute("balanced", False), "attributes: .*out of balance"),
}


def named(path: Path) -> list[str]:
    return [": ".join(problem) for problem in audit(path).problems]


@pytest.mark.parametrize("what", PLAIN)
def test_every_corruption_is_found_and_named(copy, what):
    path = copy("plain")
    corrupt, words = PLAIN[what]
    corrupt(path)
    found = named(path)
    assert any(re.match(words, line) for line in found), found


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def shorter(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["spot/sum"].resize(5, 0)


def marked_and_cut(path: Path) -> None:
    """What a killed writer's file looks like after its end was lost: HDF5 reads it as zeros."""
    data = bytearray(path.read_bytes())
    data[11] |= 5
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data[: len(data) * 2 // 3])


def listing(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def corrupt(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            said = json.loads(file["ffb/segments"].asstr()[()])
            change(said)
            file["ffb/segments"][()] = json.dumps(said)

    return corrupt


#: Corruption of a file of a run in segments.
FILES = {
    "missing": (SEGMENT, Path.unlink, "files: seg0001.h5: is missing"),
    "cut off": (SEGMENT, cut, "files: seg0001.h5: is cut off"),
    "cut off and marked": (SEGMENT, marked_and_cut, "files: seg0001.h5: .*cut off"),
    "empty": (SEGMENT, lambda p: p.write_bytes(b""), "files: seg0001.h5: "),
    "shorter": (SEGMENT, shorter, "files: seg0001.h5: is cut off: spot/sum has 5 of"),
    "no column": (
        SEGMENT,
        lambda p: h5py.File(p, "r+").__delitem__("azav/I"),
        "files: .*no azav/I",
    ),
    "of another run": (SEGMENT, attribute("run", 43), "files: seg0001.h5: is of mfxx49820 run 43"),
    "not listed": (NAME, listing(lambda s: s.pop(1)), "files: seg0001.h5: is not listed"),
    "listed otherwise": (
        NAME,
        listing(lambda s: s[1].update(first=99)),
        "files: seg0000.h5: is li",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_every_wrong_file_is_found_and_named(copy, what):
    path = copy("segments")
    name, corrupt, words = FILES[what]
    corrupt(path.parent / name)
    found = named(path)
    assert any(re.match(words, line) for line in found), found


#: Corruption of the segment that grows.
GROWING = {
    "an unflagged late row": (
        at("timestamp", 5, lambda v: v[3] - 7),
        "order: rows? .* ahead of later",
    ),
    "a wrong epoch": (at("ffb/epoch", 5, 0), "epochs: row .* not of the epoch listed"),
    "too many written": (
        account("p0", written=7),
        "written: commit .*, p0: .* rows in the file, 7",
    ),
    "no interval is open": (account("p0", open=[]), "ledger: p0: .*rows lie in no entry"),
}


@pytest.mark.parametrize("what", GROWING)
def test_a_run_that_grows_is_checked_as_well(copy, what):
    path = copy("growing")
    (live,) = path.parent.glob("*.parts/*.live.h5")
    corrupt, words = GROWING[what]
    corrupt(live)
    found = named(path)
    assert any(re.match(words, line) for line in found), found
