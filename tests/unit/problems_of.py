"""Configurations that cannot be, and what is said of them."""

import pytest

from ffb.config import ConfigError, load

SYNTHETIC = '[source]\nkind = "synthetic"\n'

#: A whole-shot reducer of two inputs, with parameters of every kind.
LOCAL = """
from typing import Annotated, NamedTuple
from ffb import Feature, Value, Waveform, reducer

class Params(NamedTuple):
    gate: tuple[int, int]
    scale: float = 1.0
    levels: tuple[float, ...] = ()
    label: str = ""
    fast: bool = False
    only: int | None = None

class Out(NamedTuple):
    area: Annotated[float, Feature("V ns")]

@reducer(version=1)
def ratio(wf: Waveform, i0: Value, params: Params) -> Out:
    return Out(wf[params.gate[0]:params.gate[1]].sum() / i0)

def of_run(run: int) -> Params:
    return Params((run, run + 1))

NUMBER = 3
"""


def problems_of(path, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)
