"""What does not add up when the rows of a run are counted again: a check for each promise.

Every check takes :class:`ffb.books.evidence.Evidence` and yields problems; together they are
:data:`CHECKS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffb.books.evidence import Evidence, losses
from ffb.books.unseen import Unseen
from ffb.reading.contents import state_bytes
from ffb.schema import EPOCH, KEPT, LATE, PRODUCER, PULSE_ID, STEP, TIMESTAMP

#: At most so many lines about one kind of problem; a last one says how many more there are.
LISTED = 5

#: A timestamp is wild, not out of order, that is ahead of later ones by so many median spacings.
WILD = 1024


class Problem(NamedTuple):
    """Something that contradicts something else: its kind, where it is, and what it is."""

    kind: str
    where: str
    what: str


def limited(problems: Iterator[Problem]) -> Iterator[Problem]:
    """The first problems, and how many more there are."""
    more = 0
    for i, problem in enumerate(problems):
        if i < LISTED:
            yield problem
        more += i >= LISTED
    if more:
        yield Problem(problem.kind, "", f"{more:,} more of this kind")


def rows_text(rows: NDArray[Any]) -> str:
    """Numbers of some rows, the first few of them."""
    text = ", ".join(f"{r:,}" for r in rows[:LISTED])
    return f"row{'s' * (len(rows) > 1)} {text}{', ...' * (len(rows) > LISTED)}"


def commits(e: Evidence) -> Iterator[Problem]:
    """Commits only go forwards, end with the rows there are, and say in the log what they say."""
    table = e.commits
    if not len(table):
        if e.rows:
            yield Problem("commits", "", f"{e.rows:,} rows are committed and no commit is listed")
        return
    if int(table["rows"][-1]) != e.rows:
        said = f"the last commit has {table['rows'][-1]:,} rows, the counter says {e.rows:,}"
        yield Problem("commits", f"commit {table['commit'][-1]}", said)
    for key in ("commit", "rows", "read", "written", "late"):
        moves = np.diff(table[key])
        for i in np.flatnonzero(moves != 1 if key == "commit" else moves < 0):
            said = f"{key} goes from {table[key][i]:,} to {table[key][i + 1]:,}"
            yield Problem("commits", f"commit {table['commit'][i + 1]}", said)
    for line, books in zip(table, e.books, strict=True):
        lost = sum(books.get("lost", {}).values())
        for key, told in {**books, "lost": lost}.items():
            if key in ("commit", "read", "written", "lost", "late", "not_seen") and (
                key in (table.dtype.names or ()) and line[key] != told
            ):
                said = f"{key} is {line[key]:,} in the table and {told:,} in the log"
                yield Problem("commits", f"commit {line['commit']}", said)


def balance(e: Evidence) -> Iterator[Problem]:
    """Read = written + lost + in flight, per producer's process and in total, at every commit."""
    ended = e.complete or (bool(e.books) and bool(e.books[-1].get("ended")))
    for i, (line, books) in enumerate(zip(e.commits, e.books, strict=True)):
        last = ended and i == len(e.books) - 1
        yield from _balanced(
            f"commit {line['commit']}, all", line["read"], line["written"], int(line["lost"]), last
        )
        total: Counter[str] = Counter()
        for number, account in e.accounts_at(i).items():
            who = e.names.get(number, str(account.get("producer", "?")))
            where, read, written = (
                f"commit {line['commit']}, {who}",
                account["read"],
                account["written"],
            )
            gone = losses(account)
            yield from _balanced(where, read, written, sum(gone.values()), last)
            total.update({"read": read, "written": written})
            total.update({f"lost: {k}": n for k, n in gone.items()})
        if "producers" not in books:
            continue
        told = {"read": books["read"], "written": books["written"]}
        told |= {f"lost: {k}": n for k, n in books["lost"].items()}
        for key in sorted(told.keys() | total.keys()):
            if told.get(key, 0) != total[key]:
                said = f"{key}: {told.get(key, 0):,} in all, {total[key]:,} by producer"
                yield Problem("balance", f"commit {line['commit']}", said)


def _balanced(where: str, read: int, written: int, lost: int, last: bool) -> Iterator[Problem]:
    flight = int(read) - int(written) - lost
    if flight < 0 or (last and flight):
        what = f"{flight:,} unaccounted for" if flight > 0 else f"{-flight:,} more than were read"
        said = f"read {read:,}, written {written:,}, lost {lost:,}: {what}"
        yield Problem("balance", where, said)


def written(e: Evidence) -> Iterator[Problem]:
    """Rows of every producer's process are those the books say were written, at every commit."""
    of = e.in_order[PRODUCER.name]
    numbers = np.unique(of)
    for number in numbers[~np.isin(numbers, e.producers["producer"])]:
        at = np.flatnonzero(e.columns[PRODUCER.name] == number)
        said = f"{len(at):,} rows are of producer {number}, which is not listed"
        yield Problem("producers", rows_text(at), said)
    ends = e.commits["rows"]
    for line in e.commits[ends != e.commits["written"]]:
        said = f"{line['written']:,} shots written, {line['rows']:,} rows"
        yield Problem("written", f"commit {line['commit']}", said)
    counted = {int(n): np.searchsorted(np.flatnonzero(of == n), ends) for n in numbers}
    for i, line in enumerate(e.commits):
        accounts = e.accounts_at(i)
        for number in sorted(counted.keys() | accounts.keys()):
            rows = int(counted[number][i]) if number in counted else 0
            told = int(accounts[number]["written"]) if number in accounts else 0
            if rows != told:
                who = e.names.get(number, f"producer {number}")
                said = f"{rows:,} rows in the file, {told:,} in the books"
                yield Problem("written", f"commit {line['commit']}, {who}", said)


def producers(e: Evidence) -> Iterator[Problem]:
    """Every producer's process has one number, and each in the books is listed."""
    for key in (["producer"], ["name", "process"]):
        _, times = np.unique(e.producers[key], return_counts=True)
        if (times > 1).any():
            yield Problem("producers", "", f"two lines of the table have the same {key[0]}")
    for number, account in e.accounts.items():
        if number < 0:
            said = f"process {account.get('epoch', 0)} is in the books and not listed"
            yield Problem("producers", str(account.get("producer", "?")), said)


def late(e: Evidence) -> Iterator[Problem]:
    """Late rows are as many as the books say at every commit."""
    counted = np.concatenate([[0], np.cumsum(e.in_order[LATE.name])])
    ends = np.clip(e.commits["rows"], 0, e.rows)
    for i in np.flatnonzero(counted[ends] != e.commits["late"]):
        line = e.commits[i]
        said = f"{counted[ends[i]]:,} rows are flagged late, {line['late']:,} in the books"
        yield Problem("late", f"commit {line['commit']}", said)


def keys(e: Evidence) -> Iterator[Problem]:
    """No timestamp stands in two rows, and the books say so."""
    stamps = e.columns[TIMESTAMP.name]
    order = np.argsort(stamps, kind="stable")
    twice = order[1:][stamps[order[1:]] == stamps[order[:-1]]]
    told = int(e.books[-1].get("duplicates", 0)) if e.books else 0
    if len(twice):
        known = f"the books know of {told:,}"
        said = f"{len(twice):,} rows have the timestamp of another row; {known}"
        yield Problem("duplicate keys", rows_text(np.sort(twice)), said)
    elif told:
        said = f"the books know of {told:,} rows with the timestamp of another, there are none"
        yield Problem("duplicate keys", "", said)


def order(e: Evidence) -> Iterator[Problem]:
    """Rows ascend: all of a finished file, those not flagged late of one that grows."""
    if len(e.placed) and not np.array_equal(np.sort(e.placed), np.arange(e.rows)):
        yield Problem("order", "ffb/order", "it does not name every row once")
        return
    stamps = e.columns[TIMESTAMP.name]
    if e.plain and e.complete:
        back = np.flatnonzero(stamps[1:] < stamps[:-1]) + 1
        if len(back):
            said = f"{len(back):,} times the timestamp goes back in a finished file"
            yield Problem("order", rows_text(back), said)
    stamps, flagged = e.in_order[TIMESTAMP.name], e.in_order[LATE.name]
    if not len(stamps):
        return
    on_time = np.flatnonzero(~flagged)
    ahead = _ahead(stamps[on_time])
    if len(ahead):
        rows = e.placed[on_time[ahead]]
        said = f"{len(rows):,} rows are ahead of later ones that are not flagged late"
        yield Problem("order", rows_text(rows), said)
    newest = np.maximum.accumulate(stamps)
    wrong = np.flatnonzero(flagged & (stamps >= newest))
    wrong = wrong[(wrong == 0) | (stamps[wrong] > newest[wrong - 1])]
    if len(wrong):
        said = f"{len(wrong):,} rows are flagged late and newer than all before them"
        yield Problem("order", rows_text(e.placed[wrong]), said)


def _ahead(stamps: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Which of ``stamps`` are ahead of a later one, but for a few from nowhere."""
    if len(stamps) < 2:
        return np.empty(0, np.intp)
    after = np.minimum.accumulate(stamps[::-1])[::-1]
    ahead = np.flatnonzero(stamps > after)
    sorted_ = np.sort(stamps)
    far = WILD * max(1, int(np.median(np.diff(sorted_))))
    wild = stamps[ahead] - after[ahead] > np.uint64(min(far, (1 << 63) - 1))
    return ahead if np.count_nonzero(wild) > max(1, len(stamps) // 32) else ahead[~wild]


def epochs(e: Evidence) -> Iterator[Problem]:
    """Every row is of the epoch that is listed for it."""
    table, of = e.epochs, e.in_order[EPOCH.name].astype(np.int64)
    if not len(of):
        return
    unknown = np.flatnonzero(~np.isin(e.columns[EPOCH.name], table["epoch"]))
    if len(unknown):
        said = f"{len(unknown):,} rows are of an epoch that is not listed"
        yield Problem("epochs", rows_text(unknown), said)
        return
    if e.moved:  # the table says at which row of the sorted file each epoch occurs first
        for epoch, row in zip(*np.unique(e.columns[EPOCH.name], return_index=True), strict=True):
            told = int(table["row"][table["epoch"] == epoch][0])
            if told != row:
                said = f"it is listed as beginning at row {told:,} and begins at row {row:,}"
                yield Problem("epochs", f"epoch {epoch}", said)
    else:
        begun = np.searchsorted(table["row"], np.arange(len(of)), "right") - 1
        wrong = np.flatnonzero((begun < 0) | (table["epoch"][begun] != of))
        if len(wrong):
            said = f"{len(wrong):,} rows are not of the epoch listed for them"
            yield Problem("epochs", rows_text(wrong), said)
    told = int(e.books[-1].get("epoch", 0)) if e.books else 0
    if told < of[-1]:
        yield Problem("epochs", "", f"the newest row is of epoch {of[-1]}, the books of {told}")


def ledger_of_rows(e: Evidence) -> Iterator[Problem]:
    """Entries of written shots cover each producer's rows exactly, and name their first one."""
    for number in sorted({*e.written["producer"].tolist(), *e.columns[PRODUCER.name].tolist()}):
        who = e.names.get(number, f"producer {number}")
        mine = e.columns[PRODUCER.name] == number
        entries = e.written[e.written["producer"] == number][["first", "last", "shots", "row"]]
        spans = [tuple(int(k) for k in entry) for entry in entries]
        if account_open := e.accounts.get(number, {}).get("open"):
            spans.append(tuple(int(k) for k in account_open))
        covered, rows = sum(s[2] for s in spans), int(np.count_nonzero(mine))
        if covered != rows:
            said = f"entries of {covered:,} written shots, {rows:,} rows"
            yield Problem("ledger", who, said)
        for first, _, shots, row in spans:
            there = 0 <= row < e.rows and mine[row] and e.columns[TIMESTAMP.name][row] == first
            if not there or shots < 1:
                said = f"the entry that begins with {first} does not begin at row {row:,}"
                yield Problem("ledger", who, said)
        yield from _covered(
            who, spans, e.in_order[TIMESTAMP.name][e.in_order[PRODUCER.name] == number]
        )


def _covered(
    who: str, spans: list[tuple[int, ...]], stamps: NDArray[np.uint64]
) -> Iterator[Problem]:
    """Each interval holds as many rows as its entry says.

    Where the producer's timestamps went back, intervals overlap, and those that do count together.
    """
    went_back = bool((stamps[1:] < stamps[:-1]).any())
    stamps, inside = np.sort(stamps), 0
    groups: list[list[int]] = []
    for first, last, shots, _ in sorted(spans):
        if groups and first <= groups[-1][1] and went_back:
            groups[-1][1] = max(groups[-1][1], last)
            groups[-1][2] += shots
        else:
            groups.append([first, last, shots])
    for first, last, shots in groups:
        begin = int(np.searchsorted(stamps, np.uint64(first), "left"))
        end = int(np.searchsorted(stamps, np.uint64(last), "right"))
        inside += max(0, end - begin)
        if end - begin != shots:
            said = (
                f"{end - begin:,} rows from {first} to {last}, entries of {shots:,} written shots"
            )
            yield Problem("ledger", who, said)
    if inside < len(stamps):
        said = f"{len(stamps) - inside:,} rows lie in no entry"
        yield Problem("ledger", who, said)


def ledger_of_losses(e: Evidence) -> Iterator[Problem]:
    """Entries of lost shots add up to the losses of the books, by producer, reason and commit."""
    table = e.lost
    for number in sorted({*table["producer"].tolist(), *e.accounts}):
        entered: Counter[str] = Counter()
        for line in table[table["producer"] == number]:
            entered[line["state"].decode(errors="replace")] += int(line["shots"])
        told: Counter[str] = Counter()
        for reason, n in losses(e.accounts.get(number, {})).items():
            told[state_bytes(reason).decode(errors="replace")] += n
        for reason in sorted(entered.keys() | told.keys()):
            if entered[reason] != told[reason]:
                who = e.names.get(number, f"producer {number}")
                said = f"{entered[reason]:,} shots lost in entries, {told[reason]:,} in the books"
                yield Problem("ledger", f"{who}, {reason or 'no reason'}", said)
    when = np.searchsorted(np.sort(table["commit"]), e.commits["commit"], "right")
    shots = np.concatenate([[0], np.cumsum(table["shots"][np.argsort(table["commit"])])])
    for i in np.flatnonzero(shots[when] != e.commits["lost"]):
        line = e.commits[i]
        said = f"{shots[when[i]]:,} shots lost in entries so far, {line['lost']:,} in the books"
        yield Problem("ledger", f"commit {line['commit']}", said)
    for line in e.ledger[~np.isin(e.ledger["commit"], e.commits["commit"])]:
        said = f"an entry came with commit {line['commit']}, which is not listed"
        yield Problem("ledger", "", said)


def kept(e: Evidence) -> Iterator[Problem]:
    """The fraction of shots kept is above 0 and at most 1."""
    values = e.columns[KEPT.name]
    wrong = np.flatnonzero(~((values > 0) & (values <= 1)))
    if len(wrong):
        said = f"{len(wrong):,} rows have a fraction kept of {values[wrong[0]]:g}"
        yield Problem("kept", rows_text(wrong), said)


def steps(e: Evidence) -> Iterator[Problem]:
    """Steps of rows are listed, and begin within the run; one without rows is at row -1."""
    column = e.columns[STEP.name]
    unknown = np.flatnonzero((column >= 0) & ~np.isin(column, e.steps["step"]))
    if len(unknown):
        said = f"{len(unknown):,} rows are of a step that is not listed"
        yield Problem("steps", rows_text(unknown), said)
    taken = np.isin(e.steps["step"], column)
    for line, any_rows in zip(e.steps, taken.tolist(), strict=True):
        if e.complete and not -1 + any_rows <= line["row"] <= e.rows:
            said = f"it is listed as beginning at row {line['row']:,} of {e.rows:,}"
            yield Problem("steps", f"step {line['step']}", said)


def not_seen(e: Evidence) -> Iterator[Problem]:
    """The estimate of shots never offered is what the pulse ids of the rows give."""
    if "not_seen" not in (e.commits.dtype.names or ()) or not len(e.commits):
        return
    unseen = Unseen()
    unseen.add(*(e.in_order[c.name] for c in (PULSE_ID, STEP, LATE)))
    estimate, told = unseen.estimate(int(e.commits["lost"][-1])), int(e.commits["not_seen"][-1])
    if estimate != told:
        said = f"the pulse ids of the rows give {estimate:,} shots not seen, the books {told:,}"
        yield Problem("not seen", f"commit {e.commits['commit'][-1]}", said)


CHECKS: tuple[Callable[[Evidence], Iterator[Problem]], ...] = (
    commits,
    balance,
    written,
    ledger_of_rows,
    ledger_of_losses,
    keys,
    order,
    late,
    epochs,
    producers,
    steps,
    kept,
    not_seen,
)
