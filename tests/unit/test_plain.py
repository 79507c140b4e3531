"""What sources of plain values share."""

import signal

import numpy as np
import pytest

from ffb.shot import Field, FrameBlock, Input
from ffb.sources.plain import Binding, PlainShot, Stop, share, unknown, words_of

WAVE, IMAGE = Input("value", "<f8", (3,)), Input("area", "<u2", (2, 4, 5))
KNOWN = [Field("jungfrau", "raw", "raw"), Field("w8", "raw", "raw_0"), Field("w8", "fex", "posX")]


def test_a_frame_of_another_shape_counts_as_absent():
    block = FrameBlock({"wave": WAVE, "image": IMAGE, "other": WAVE}, 2)
    frames = {"wave": np.arange(1.0), "image": np.zeros((2, 4, 6), np.uint16), "other": np.ones(3)}
    PlainShot(5, frames).fill(block, 1)
    assert block.present[1].tolist() == [False, False, True]
    assert not block.present[0].any()
    np.testing.assert_array_equal(block.frames["other"][1], 1.0)
    assert block.timestamp[1] == 5
    assert not block.timed[1]


def test_a_row_forgets_the_shot_it_held_before():
    block = FrameBlock({"wave": WAVE}, 1)
    PlainShot(1, {"wave": np.ones(3)}, 7, words_of([40, 287])).fill(block, 0)
    assert block.timed[0]
    assert block.codes[0, 2] == 1 << 8
    assert block.codes[0, 17] == 1 << 15
    PlainShot(2, {}).fill(block, 0)
    assert not block.present.any()
    assert not block.timed[0]
    assert not block.codes.any()
    assert block.pulse_id[0] == 0


def test_a_signal_handler_may_stop_what_it_interrupts():
    """With a lock in ``set`` or ``wait`` this would hang: the handler runs in the same thread."""
    stop = Stop()
    old = signal.signal(signal.SIGALRM, lambda *_: stop.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while not stop.is_set():
            stop.wait(0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert stop.is_set()


def test_segments_of_an_area_come_flat_and_in_order():
    area = np.arange(40, dtype=np.uint16).reshape(2, 4, 5)
    parts = PlainShot(1, {"image": area}).segments("image")
    assert [p.tolist() for p in parts] == [list(range(20)), list(range(20, 40))]
    assert PlainShot(1, {}).segments("image") is None


@pytest.mark.parametrize("producers", [1, 2, 5])
def test_every_shot_has_one_producer_and_none_is_favoured(producers):
    """Also where timestamps are regular, as 120 Hz pulses with the laser on every other one."""
    mine = [share(k, producers) for k in range(producers)]
    stamps = [(1_100_000_000 + i // 120) << 32 | i % 120 * 8_333_333 for i in range(6000)]
    taken = np.array([[m(s) for m in mine] for s in stamps])
    assert (taken.sum(1) == 1).all()
    for phase in (taken[::2], taken[1::2]):
        np.testing.assert_allclose(phase.mean(0), 1 / producers, atol=0.05)
    with pytest.raises(ValueError, match="count them from 0"):
        share(producers, producers)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Field("jungfrua", "raw", "raw"), "no detector 'jungfrua' in this run; nearest is 'jung"),
        (Field("w8", "raw", "raw_9"), "w8 has no field raw.raw_9; nearest is 'raw.raw_0'"),
        (Field("zzz", "raw", "raw"), "it has jungfrau, w8"),
        (Field("w8", "q", "q"), "it has fex.posX, raw.raw_0"),
    ],
)
def test_an_unknown_field_is_answered_with_what_there_is(wanted, says):
    assert says in unknown(wanted, KNOWN)
    assert "none" in unknown(wanted, [])


def test_a_stated_shape_must_be_the_run_s():
    binding = Binding({KNOWN[1]: WAVE})
    inputs, problems = binding.bind({"a": KNOWN[1], "b": KNOWN[1]}, {"a": (4,), "b": (3,)})
    assert list(inputs) == ["b"]
    assert problems == [
        "inputs.a: w8.raw.raw_0 has the shape (3,) in this run, not (4,); correct its shape, or"
        " leave it out"
    ]
