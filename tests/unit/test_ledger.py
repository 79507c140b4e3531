"""The books: what is read is written, lost with a reason, or in flight; else it is said."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ffb.ledger import VANISHED, Ledger
from ffb.sink import Counts

A, B = ("a", 10), ("b", 20)


def said(read: int, **lost: int) -> dict:
    return {"read": read, "lost": lost}


def test_books_in_order_have_nothing_to_say() -> None:
    ledger = Ledger()
    ledger.heard(A, said(10, backpressure=3))
    ledger.write(A, 5)
    ledger.refuse(A, "the run is closed", 2)
    ledger.end(A, "end of run", 7)
    assert ledger.balance() == []
    ledger.settle()
    assert ledger.balance() == []
    counts = ledger.counts(4, 1, 2, "end of run")
    assert (counts.commit, counts.read, counts.written) == (4, 10, 5)
    assert counts.lost == {"backpressure": 3, "the run is closed": 2}
    assert (counts.late, counts.duplicates, counts.ended) == (1, 2, "end of run")


def test_more_written_than_read_is_said_at_once() -> None:
    ledger = Ledger()
    ledger.heard(A, said(10, backpressure=3))
    ledger.write(A, 8)
    assert ledger.balance() == [
        "producer a (epoch 10): read 10, written 8, lost 3: 1 shots more than it read"
    ]


def test_what_is_in_flight_is_said_only_when_the_run_is_over() -> None:
    ledger = Ledger()
    ledger.heard(A, said(10))
    ledger.write(A, 8)
    ledger.end(A, "end of run", 5)
    assert ledger.balance() == []
    ledger.settle()
    assert ledger.balance() == [
        "producer a (epoch 10): read 10, written 8, lost 0: 2 shots are unaccounted for"
    ]


def test_a_producer_that_vanished_is_named_and_what_it_held_is_lost() -> None:
    ledger = Ledger()
    ledger.heard(A, said(10))
    ledger.write(A, 8)
    ledger.heard(B, said(5))
    ledger.write(B, 5)
    ledger.end(B, "end of run", 5)
    ledger.settle()
    ledger.settle()
    assert ledger.counts(1, 0, 0).lost == {VANISHED: 2}
    (problem,) = ledger.balance()
    assert problem.startswith("producer a (epoch 10) vanished without end_run: read 10, written 8")


def test_what_a_producer_said_it_cannot_take_back() -> None:
    ledger = Ledger()
    ledger.heard(A, said(10, backpressure=3))
    ledger.heard(A, said(6, backpressure=1))
    counts = ledger.counts(1, 0, 0)
    assert (counts.read, counts.lost) == (10, {"backpressure": 3})


def test_changes_are_noticed_until_they_are_told() -> None:
    ledger = Ledger()
    assert not ledger.changed
    for change in (
        lambda: ledger.heard(A, said(1)),
        lambda: ledger.heard(A, said(1, damaged=1)),
        lambda: ledger.write(B, 1),
        lambda: ledger.refuse(A, "x", 1),
        lambda: ledger.end(A, "end of run", 1),
    ):
        change()
        assert ledger.changed
        ledger.counts(1, 0, 0)
        assert not ledger.changed
    ledger.heard(A, said(1, damaged=1))
    assert not ledger.changed


def test_two_lives_of_a_producer_have_two_accounts() -> None:
    ledger = Ledger()
    ledger.heard(("a", 1), said(3))
    ledger.heard(("a", 2), said(4))
    producers = ledger.counts(1, 0, 0).producers
    assert {k: v["epoch"] for k, v in producers.items()} == {"a@1": 1, "a": 2}
    assert ledger.counts(1, 0, 0).read == 7


def test_an_end_that_is_not_yet_durable_is_not_in_the_books() -> None:
    ledger = Ledger()
    ledger.end(A, "end of run", 5)
    ledger.account(A).seq = 4
    assert ledger.counts(1, 0, 0).producers["a"]["ended"] == ""
    ledger.account(A).seq = 5
    assert ledger.counts(1, 0, 0).producers["a"]["ended"] == "end of run"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([("a", 1), ("a", 2), ("b", 1)]),
            st.integers(0, 100),
            st.dictionaries(st.sampled_from(["backpressure", "damaged"]), st.integers(0, 9)),
            st.integers(0, 50),
            st.integers(0, 9),
        )
    )
)
def test_books_survive_the_file_they_are_kept_in(entries: list) -> None:
    ledger = Ledger()
    for name, read, lost, written, refused in entries:
        ledger.heard(name, {"read": read, "lost": lost})
        ledger.write(name, written)
        ledger.refuse(name, "other columns", refused)
        ledger.account(name).seq += 1
        ledger.account(name).partial = {7: 2}
    kept = ledger.counts(3, 1, 0)
    again = Ledger()
    again.resume(Counts(producers=json.loads(json.dumps(kept.producers))))
    assert again.accounts == ledger.accounts
    assert again.counts(3, 1, 0) == kept
