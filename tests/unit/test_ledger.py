"""The books: what is read is written, lost with a reason, or in flight; else it is said."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.batch import Batch
from ffb.ledger import UNREADABLE, VANISHED, Ledger
from ffb.messaging.window import Name
from ffb.sink import WRITTEN, Counts, Entry
from tests.unit.producers import batch

A, B = ("a", 10), ("b", 20)


def said(read: int, **lost: int) -> dict:
    return {"read": read, "lost": lost}


def stamps(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def rows(ledger: Ledger, name: Name, *values: int) -> Batch:
    """Rows of one producer, which has received them."""
    out = batch(values)
    account = ledger.account(name)
    out.columns["ffb/producer"][:] = account.index
    account.received += out.n
    return out


def test_books_in_order_have_nothing_to_say() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(10, backpressure=3))
    ledger.write(rows(ledger, A, 1, 2, 3, 4, 5))
    ledger.refuse(A, "the run is closed", stamps(6, 7))
    ledger.end(A, "end of run", 7)
    assert ledger.balance() == ledger.check() == []
    ledger.settle()
    assert ledger.balance() == ledger.check() == []
    counts = ledger.counts(4, 1, 2, "end of run", not_seen=9)
    assert (counts.commit, counts.read, counts.written) == (4, 10, 5)
    assert counts.lost == {"backpressure": 3, "the run is closed": 2}
    assert (counts.late, counts.duplicates, counts.ended) == (1, 2, "end of run")
    assert counts.not_seen == 9
    assert counts.ledger == (
        Entry(0, "backpressure", 0, 0, 3),
        Entry(0, "the run is closed", 6, 7, 2),
        Entry(0, WRITTEN, 1, 5, 5, 0),
    )


def test_more_written_than_read_is_said_at_once() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(10, backpressure=3))
    ledger.write(rows(ledger, A, *range(8)))
    assert ledger.balance() == [
        "producer a (epoch 10): read 10, written 8, lost 3: 1 shots more than it read"
    ]
    (problem,) = ledger.check()
    assert problem == (
        "producer a (epoch 10): the books contradict each other: read 10, received 8, written 8,"
        " in entries 8, lost 3"
    )


def test_rows_of_which_nobody_knows_are_said_at_once() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(3))
    ledger.write(rows(ledger, A, 1, 2))
    ledger.rows += 1
    assert ledger.check() == ["3 rows in the file are not those in the books"]


def test_what_is_in_flight_is_said_only_when_the_run_is_over() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(10))
    ledger.write(rows(ledger, A, *range(8)))
    ledger.end(A, "end of run", 5)
    assert ledger.balance() == []
    ledger.settle()
    assert ledger.balance() == [
        "producer a (epoch 10): read 10, written 8, lost 0: 2 shots are unaccounted for"
    ]


def test_a_producer_that_vanished_is_named_and_what_it_held_is_lost() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(10))
    ledger.write(rows(ledger, A, *range(8)))
    ledger.heard(B, 1, said(5))
    ledger.write(rows(ledger, B, *range(5)))
    ledger.end(B, "end of run", 5)
    ledger.settle()
    ledger.settle()
    counts = ledger.counts()
    assert counts.lost == {VANISHED: 2}
    assert Entry(0, VANISHED, 0, 0, 2) in counts.ledger
    (problem,) = ledger.balance()
    assert problem.startswith("producer a (epoch 10) vanished without end_run: read 10, written 8")


def test_what_was_in_unreadable_messages_is_lost_when_the_last_word_is_said() -> None:
    ledger = Ledger()
    ledger.account(A).unreadable += 1
    ledger.heard(A, 3, said(10, backpressure=1))
    ledger.write(rows(ledger, A, 1, 2, 3))
    ledger.end(A, "end of run", 4)
    assert ledger.counts().lost == {"backpressure": 1, UNREADABLE: 6}
    ledger.end(A, "end of run", 4)
    assert ledger.counts().ledger == ()


def test_what_a_producer_said_it_cannot_take_back() -> None:
    ledger = Ledger()
    assert ledger.heard(A, 1, said(10, backpressure=3))
    assert ledger.heard(A, 2, said(6, backpressure=1))
    counts = ledger.counts()
    assert (counts.read, counts.lost) == (10, {"backpressure": 3})


def test_a_message_said_again_changes_nothing_but_divides_what_comes() -> None:
    ledger = Ledger()
    losses = [["backpressure", 5, 5, 1]]
    ledger.heard(A, 1, said(3, backpressure=1), losses)
    first = ledger.counts()
    assert first.ledger == (Entry(0, "backpressure", 5, 5, 1),)
    again = Ledger()
    again.resume(first)
    assert not again.heard(A, 1, said(3, backpressure=1), losses)
    again.write(rows(again, A, 4, 6))
    again.close()
    assert again.counts().ledger == (Entry(0, WRITTEN, 4, 4, 1, 0), Entry(0, WRITTEN, 6, 6, 1, 1))


def test_changes_are_noticed_until_they_are_told() -> None:
    ledger = Ledger()
    assert not ledger.changed
    for seq, change in enumerate(
        (
            lambda seq: ledger.heard(A, seq, said(1)),
            lambda seq: ledger.heard(A, seq, said(1, damaged=1)),
            lambda seq: ledger.write(rows(ledger, B, 1)),
            lambda seq: ledger.refuse(A, "x", stamps(1)),
            lambda seq: ledger.end(A, "end of run", seq),
            lambda seq: ledger.close(),
        )
    ):
        change(seq + 1)
        assert ledger.changed
        ledger.counts()
        assert not ledger.changed
    ledger.heard(A, 9, said(1, damaged=1))
    assert not ledger.changed


def test_two_lives_of_a_producer_have_two_accounts() -> None:
    ledger = Ledger()
    ledger.heard(("a", 1), 1, said(3))
    ledger.heard(("a", 2), 1, said(4))
    producers = ledger.counts().producers
    assert {k: (v["epoch"], v["index"]) for k, v in producers.items()} == {
        "a@1": (1, 0),
        "a": (2, 1),
    }
    assert ledger.counts().read == 7


def test_an_end_that_is_not_yet_durable_is_not_in_the_books() -> None:
    ledger = Ledger()
    ledger.end(A, "end of run", 5)
    ledger.cover(A, 4, {})
    assert ledger.counts().producers["a"]["ended"] == ""
    ledger.cover(A, 5, {})
    assert ledger.counts().producers["a"]["ended"] == "end of run"


@pytest.mark.parametrize(
    ("losses", "written", "expected"),
    [
        ([], [1, 2, 3], [(1, 3, 3, 0)]),
        ([(2, 2, 1)], [1, 3], [(1, 1, 1, 0), (3, 3, 1, 1)]),
        ([(4, 4, 1)], [1, 3], [(1, 3, 2, 0)]),
        ([(3, 9, 3)], [1, 2, 4, 8, 10, 11], [(1, 2, 2, 0), (4, 8, 2, 2), (10, 11, 2, 4)]),
        (
            [(3, 9, 2), (5, 5, 1)],
            [1, 4, 6, 10],
            [(1, 1, 1, 0), (4, 4, 1, 1), (6, 6, 1, 2), (10, 10, 1, 3)],
        ),
        ([(7, 7, 1)], [7], [(7, 7, 1, 0)]),
        ([(2, 2, 0)], [1, 3], [(1, 3, 2, 0)]),
    ],
)
def test_a_loss_divides_what_is_written(losses: list, written: list, expected: list) -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(99), [["backpressure", *loss] for loss in losses])
    ledger.write(rows(ledger, A, *written))
    ledger.close()
    made = [e for e in ledger.counts().ledger if e.state == WRITTEN]
    assert made == [Entry(0, WRITTEN, *e) for e in expected]


def test_a_loss_divides_rows_before_it_from_rows_that_come_later() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(2))
    ledger.write(rows(ledger, A, 1, 2))
    ledger.heard(A, 2, said(3, backpressure=1), [["backpressure", 3, 3, 1]])
    ledger.cover(A, 2, {})
    ledger.heard(A, 3, said(4, backpressure=1))
    ledger.write(rows(ledger, A, 4))
    ledger.close()
    made = [e for e in ledger.counts().ledger if e.state == WRITTEN]
    assert made == [Entry(0, WRITTEN, 1, 2, 2, 0), Entry(0, WRITTEN, 4, 4, 1, 2)]


def test_a_row_that_comes_after_a_covered_loss_lies_behind_it_whatever_its_stamp() -> None:
    ledger = Ledger()
    ledger.heard(A, 1, said(1))
    ledger.write(rows(ledger, A, 1))
    ledger.heard(A, 2, said(2, backpressure=1), [["backpressure", 5, 5, 1]])
    ledger.cover(A, 2, {})
    ledger.heard(A, 3, said(3, backpressure=1))
    ledger.write(rows(ledger, A, 4))
    ledger.close()
    made = [e for e in ledger.counts().ledger if e.state == WRITTEN]
    assert made == [Entry(0, WRITTEN, 1, 1, 1, 0), Entry(0, WRITTEN, 4, 4, 1, 1)]


def test_stamps_that_go_back_begin_an_entry_of_their_own() -> None:
    ledger = Ledger()
    ledger.write(rows(ledger, A, 5, 6))
    ledger.write(rows(ledger, A, 3, 4))
    ledger.close()
    assert ledger.counts().ledger == (
        Entry(0, WRITTEN, 5, 6, 2, 0),
        Entry(0, WRITTEN, 3, 4, 2, 2),
    )


def test_interleaved_rows_extend_the_interval_of_each_producer() -> None:
    ledger = Ledger()
    ledger.account(A), ledger.account(B)
    both = batch([1, 2, 3, 4])
    both.columns["ffb/producer"][:] = [1, 0, 1, 0]
    ledger.write(both)
    ledger.close()
    assert ledger.counts().ledger == (
        Entry(0, WRITTEN, 2, 4, 2, 1),
        Entry(1, WRITTEN, 1, 3, 2, 0),
    )


def test_the_end_of_a_producer_closes_its_interval_once_all_its_rows_are_written() -> None:
    ledger = Ledger()
    late = rows(ledger, A, 2)
    ledger.write(rows(ledger, A, 1))
    ledger.end(A, "end of run", 3)
    ledger.cover(A, 1, {})
    assert ledger.counts().ledger == ()
    ledger.write(late)
    ledger.cover(A, 3, {})
    assert ledger.counts().ledger == (Entry(0, WRITTEN, 1, 2, 2, 0),)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([("a", 1), ("a", 2), ("b", 1)]),
            st.integers(0, 3),
            st.dictionaries(st.sampled_from(["backpressure", "damaged"]), st.integers(0, 9)),
            st.lists(st.integers(0, 50), min_size=1, max_size=5),
            st.integers(0, 9),
        )
    )
)
def test_books_survive_the_file_they_are_kept_in(entries: list) -> None:
    ledger, file = Ledger(), []
    for seq, (name, read, lost, written, refused) in enumerate(entries, 1):
        ledger.heard(name, seq, {"read": read + 50 * seq, "lost": lost})
        ledger.refuse(name, "other columns", stamps(*range(refused)))
        ledger.write(rows(ledger, name, *sorted(written)))
        ledger.cover(name, seq, {})
        kept = ledger.counts(3, 1, 0)
        file += kept.ledger
        ledger = Ledger()
        ledger.resume(Counts(**json.loads(json.dumps(asdict(kept) | {"ledger": []}))))
        assert ledger.counts(3, 1, 0) == Counts(**{**vars(kept), "ledger": ()})
        assert ledger.check() == []
    ledger.settle()
    end = ledger.counts()
    file += end.ledger
    told: Counter[str] = Counter()
    for entry in file:
        told[entry.state] += entry.shots
    assert told[WRITTEN] == sum(len(e[3]) for e in entries)
    assert {k: n for k, n in told.items() if k != WRITTEN} == end.lost
