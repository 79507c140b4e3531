"""References run as Python, with all that they call."""

import numba
import pytest

from ffb.testing.guard import Compiled, uncompiled


@numba.njit
def inner(x):
    return x + 1


@numba.njit
def outer(x):
    return inner(x)


def test_nothing_is_compiled_within_and_all_is_after_an_error():
    with Compiled() as compiled:
        with uncompiled():
            assert outer(1) == 2
        with pytest.raises(TypeError), uncompiled():
            outer("a")
        assert compiled.names == []
        assert outer(1) == 2
    assert len(compiled.names) == 2
