"""Declarations teach; the contract catches unsound reducers; the cache knows what it is of."""

import importlib.util
import linecache
import os
import sys
from typing import Annotated, NamedTuple

import numba
import numpy as np
import pytest

from ffb import Feature, Tile, Vector, Waveform, reducer, tile_reducer
from ffb.loops import compile as compiling
from ffb.reduce import Reducer
from ffb.reducers import roi
from ffb.shot import Input
from ffb.testing.check_reducer import check_reducer
from ffb.testing.guard import Compiled, no_compilation
from tests.unit.passes import detector, member, reduce

RNG = np.random.default_rng(7)


class Scale(NamedTuple):
    """A factor."""

    by: float


class Total(NamedTuple):
    total: Annotated[float, Feature("@ ns", "sum")]


class Kept(NamedTuple):
    seen: np.ndarray


@tile_reducer(version=1)
class leaky:  # noqa: N801
    """Forgets to forget."""

    @staticmethod
    def prepare(params: Scale, area):
        return params

    @staticmethod
    def allocate(constants):
        return Kept(np.zeros(1))

    @staticmethod
    def start(constants, state):
        pass

    @staticmethod
    def accumulate(tile: Tile, constants, state):
        for v in tile.values:
            state.seen[0] += np.float64(v) if v == v else 0.0

    @staticmethod
    def finish(constants, state) -> Total:
        return Total(state.seen[0])


@reducer(version=1)
def vandal(wf: Waveform) -> Total:
    wf[0] = 7
    return Total(wf[0])


@reducer(version=1)
def absolute(wf: Waveform) -> Total:
    total = 0.0
    for v in wf:
        total += np.float64(v)
    return Total(abs(total) if wf.size > 10 else 0.0)


def test_the_contract_catches_a_state_that_leaks():
    with pytest.raises(AssertionError, match=r"in reverse|compiled against plain"):
        check_reducer(leaky, Scale(1.0), detector((1, 2, 3)))


def test_the_contract_catches_one_that_writes_to_its_frame():
    with pytest.raises((AssertionError, ValueError), match=r"read-only|writes"):
        check_reducer(vandal, None, {"wf": Input("value", "<f8", (5,))})


def test_the_contract_passes_a_sound_reducer_without_parameters():
    check_reducer(absolute, None, {"wf": Input("value", "<i2", (12,))})


def test_declarations_say_what_they_lack():
    class NoUnit(NamedTuple):
        a: float

    class NoDims(NamedTuple):
        a: Annotated[Vector, Feature("V")]

    class Taken(NamedTuple):
        present: Annotated[float, Feature("V")]

    class Mapped(NamedTuple):
        table: dict

    def made(features, params=Scale):
        def f(wf, p):
            raise NotImplementedError

        f.__annotations__ = {"wf": Waveform, "p": params, "return": features}
        return f

    for features, text in [
        (NoUnit, "f.a: has no unit"),
        (NoDims, "f.a: a feature with axes needs dims and dtype"),
        (Taken, "f.present: the name is taken"),
        (float, "must return a NamedTuple"),
    ]:
        with pytest.raises(TypeError, match=text):
            Reducer(made(features), 1)
    with pytest.raises(TypeError, match="parameter table is <class 'dict'>"):
        Reducer(made(Total, Mapped), 1).constants(Mapped({}), {})
    with pytest.raises(TypeError, match="has no prepare"):
        tile_reducer(version=1)(type("empty", (), {}))


def test_a_reducer_tells_name_version_source_and_units():
    assert (absolute.name, absolute.version) == ("absolute", 1)
    assert "def absolute(wf: Waveform)" in absolute.source
    assert len(absolute.hash) == 64
    assert absolute(np.ones(12)) == (12.0,)
    area = detector((1, 2, 3))
    (column,) = member("m", leaky, Scale(1.0), area).columns
    assert (column.name, column.unit, column.dtype) == ("m/total", "keV ns", "<f8")


def helper(x):
    return x + OFFSET


OFFSET = 1


def caller(x):
    return helper(x)


def test_the_cache_key_knows_callees_and_constants(monkeypatch):
    before = compiling.fingerprint([caller])
    assert compiling.fingerprint([caller]) == before
    monkeypatch.setitem(globals(), "OFFSET", 2)
    changed = compiling.fingerprint([caller])
    monkeypatch.setitem(globals(), "helper", lambda x: x * OFFSET)
    assert len({before, changed, compiling.fingerprint([caller])}) == 3


def loaded(path, text):
    """The module at ``path`` with this text, as a new process would import it."""
    path.write_text(text)
    linecache.checkcache(str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("named", ["from between import twice", "import between"])
def test_an_edited_callee_leaves_no_stale_caller(tmp_path, monkeypatch, named):
    monkeypatch.setenv("FFB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    head = "from ffb.loops.compile import kernel\n"
    callee = head + "\n\n@kernel\ndef low(x):\n    return x + {}\n"
    between = head + "from lowest import low\n\n\n@kernel\ndef twice(x):\n    return 2 * low(x)\n"
    by = named.split()[-1].replace("between", "between.twice")
    caller = f"{named}\n\n\ndef caller(x):\n    return {by}(x)\n"

    def built(number):
        loaded(tmp_path / "lowest.py", callee.format(number))
        loaded(tmp_path / "between.py", between)
        scope = {"caller": compiling.kernel(loaded(tmp_path / "middle.py", caller).caller)}
        text = "def top(x):\n    return caller(x)\n"
        return compiling.build(text, scope, (numba.types.int64,))

    try:
        with Compiled() as compiled:
            assert built(1)(10) == 22
        assert numba.config.DISABLE_JIT or compiled.names
        with no_compilation():  # for the same text there is the cache
            assert built(1)(10) == 22
        assert built(5)(10) == 30
        with no_compilation():  # a dry run is in plain Python, whatever a function is called by
            assert compiling.uncompiled(sys.modules["middle"].caller)(10) == 30
    finally:
        for name in ("lowest", "between", "middle"):
            sys.modules.pop(name, None)


def test_the_cache_moves_where_it_can_write(tmp_path, monkeypatch):
    monkeypatch.setenv("FFB_CACHE", str(tmp_path / "mine"))
    assert compiling.cache_folder() == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FFB_CACHE", str(tmp_path / "file" / "below"))
    other = compiling.cache_folder()
    assert tmp_path not in other.parents
    assert os.access(other, os.W_OK)


class Level(NamedTuple):
    level: float


class Above(NamedTuple):
    n: Annotated[int, Feature("1", "pixels above the level")]


class Seen(NamedTuple):
    n: np.ndarray


@tile_reducer(version=1)
class above:  # noqa: N801
    """Makes an array for every row."""

    @staticmethod
    def prepare(params: Level, area):
        return params

    @staticmethod
    def allocate(constants):
        return Seen(np.zeros(1, np.int64))

    @staticmethod
    def start(constants, state):
        state.n[0] = 0

    @staticmethod
    def accumulate(tile, constants, state):
        state.n[0] += (tile.values > constants.level).sum()

    @staticmethod
    def finish(constants, state) -> Above:
        return Above(state.n[0])


def test_a_reducer_may_make_arrays_for_a_row():
    area = detector((2, 9, 23))
    images = RNG.normal(0, 1, (3, *area.shape)).astype(np.float32)
    made = member("above", above, Level(0.5), area)
    roi_member = member("spot", roi.roi, roi.Params((0, 9), (0, 23)), area)
    got = reduce([made, roi_member], area, images)
    np.testing.assert_array_equal(got["above/n"], (images > 0.5).sum(axis=(1, 2, 3)))
    assert got["spot/npix"].tolist() == [9 * 23] * 3
