"""The run that the tests of files read, unless they make one of their own."""

import pytest

from ffb.testing.truth import RunSpec


@pytest.fixture(scope="module")
def spec():
    return RunSpec(steps=2, shots_per_step=12, segments=2, epix=2, corrupt=10)
