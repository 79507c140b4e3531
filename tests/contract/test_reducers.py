"""Every reducer that ships keeps the contract; none can be forgotten."""

from importlib import import_module

import pytest

from ffb.configuration import resolve
from ffb.reduce import Reducer, TileReducer
from ffb.testing.check_reducer import check_reducer

NAMES = resolve.installed()


def test_the_first_reducers_ship():
    assert {"azimuthal", "histogram", "projection", "roi", "waveform_integral"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_keeps_the_contract(name):
    module = import_module(f"ffb.reducers.{name}")
    assert hasattr(module, "example"), f"ffb.reducers.{name} offers no example() to check it with"
    found = getattr(module, name)
    assert isinstance(found, Reducer | TileReducer)
    check_reducer(found, *module.example())


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_explains_itself(name):
    found = getattr(import_module(f"ffb.reducers.{name}"), name)
    assert found.doc
    assert found.params is None or found.params.__doc__
    for feature, (_, meta) in found.outputs.items():
        assert meta.unit, feature
        assert meta.doc, feature
