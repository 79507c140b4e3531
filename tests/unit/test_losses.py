"""Every loss is told once: by its timestamp while there are few, as ranges when there are many."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ffb.books.losses import Losses
from ffb.wire import Decoder, EndRun, Header, encode

REASONS = st.sampled_from(["backpressure", "damaged", "disk"])


def test_few_losses_are_told_one_by_one():
    losses = Losses()
    assert not losses
    losses.add("damaged", 7)
    losses.add("backpressure", 9)
    assert losses
    assert losses.take() == [["damaged", 7, 7, 1], ["backpressure", 9, 9, 1]]
    assert not losses
    assert losses.take() == []
    assert losses.total == {"damaged": 1, "backpressure": 1}


def test_beyond_the_bound_of_a_message_a_reason_has_one_range():
    losses = Losses(singly=2)
    for t in range(10):
        losses.add("disk" if t == 6 else "backpressure", t)
    assert losses.take() == [
        ["backpressure", 0, 0, 1],
        ["backpressure", 1, 1, 1],
        ["backpressure", 2, 9, 7],
        ["disk", 6, 6, 1],
    ]
    losses.add("backpressure", 11)
    assert losses.take() == [["backpressure", 11, 11, 1]]


def test_beyond_the_bound_of_a_run_there_are_only_ranges():
    losses = Losses(singly=2, singly_in_run=3)
    told = []
    for t in range(0, 40, 4):
        for k in range(4):
            losses.add("backpressure", t + k)
        told.append(losses.take())
    assert [len(t) for t in told] == [3, 2, *[1] * 8]
    assert told[-1] == [["backpressure", 36, 39, 4]]


@given(
    st.lists(st.tuples(REASONS, st.integers(1, 1 << 62), st.booleans())),
    st.integers(0, 5),
    st.integers(0, 20),
)
def test_what_is_told_adds_up_and_travels(lost, singly, in_run):
    losses, told = Losses(singly, in_run), []
    for reason, stamp, then_send in lost:
        losses.add(reason, stamp)
        if then_send:
            told.append(losses.take())
            assert len(told[-1]) <= singly + 3
    told.append(losses.take())
    counts, decode = Counter(), Decoder()
    for n, message in enumerate(told):
        header = Header("end_run", "e", 1, 2, "p", 3, n + 1, losses=message)
        for reason, first, last, shots in decode(encode(header, None, EndRun())).header.losses:
            counts[reason] += shots
            assert (reason, first) in {x[:2] for x in lost}
            assert (reason, last) in {x[:2] for x in lost}
    assert counts == losses.total == Counter(reason for reason, _, _ in lost)
