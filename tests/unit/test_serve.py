"""What goes wrong beside the rows must not cost a row."""

import pytest

from ffb.aggregating.beside import Contained
from ffb.sink import Counts
from tests.unit.producers import RUN, SCHEMA, Memory, batch


def test_a_live_model_that_fails_is_left_alone_and_the_fault_is_told(caplog):
    class Broken(Memory):
        def commit(self, counts):
            raise ZeroDivisionError("no shots")

    shown = Contained(sink := Broken())
    shown.begin_run(RUN, SCHEMA, None)
    shown.append(batch([1, 2]))
    assert shown.fault == ""
    shown.commit(Counts(1, 2, 2))
    assert shown.fault == "the page shows no more rows of this run: ZeroDivisionError: no shots"
    assert "the live model failed" in caplog.text
    shown.append(batch([3]))
    assert len(sink.waiting) == 1


@pytest.mark.parametrize("failing", ["begin_run", "append"])
def test_whatever_call_fails(failing, caplog):
    sink = Memory()
    sink.failing.add(failing)
    shown = Contained(sink)
    shown.begin_run(RUN, SCHEMA, None)
    shown.append(batch([1]))
    assert "no space left" in shown.fault
