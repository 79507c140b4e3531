"""Every reducer that ships keeps the contract; none can be forgotten."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import pytest

from ffb.configuration import resolve
from ffb.reduce import Reducer, TileReducer
from ffb.testing.check_reducer import check_reducer

NAMES = resolve.installed()
TILES = [n for n in NAMES if isinstance(resolve.reducer(n, Path()), TileReducer)]
SHOTS = [n for n in NAMES if n not in TILES]
PLAIN = pytest.mark.skipif(
    not numba.config.DISABLE_JIT, reason="the compiled code is that of other shapes and masks"
)
ODD = ((1, 1, 1), (1, 1, 17), (3, 7, 1))


def example(name):
    module = import_module(f"ffb.reducers.{name}")
    assert hasattr(module, "example"), f"ffb.reducers.{name} offers no example() to check it with"
    return getattr(module, name), *module.example()


def test_the_first_reducers_ship():
    assert {"azimuthal", "histogram", "projection", "roi", "waveform_integral"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_keeps_the_contract(name):
    found, *given = example(name)
    assert isinstance(found, Reducer | TileReducer)
    check_reducer(found, *given)


@pytest.mark.parametrize("name", NAMES)
def test_a_reducer_explains_itself(name):
    found = getattr(import_module(f"ffb.reducers.{name}"), name)
    assert found.doc
    assert found.params is None or found.params.__doc__
    for feature, (_, meta) in found.outputs.items():
        assert meta.unit, feature
        assert meta.doc, feature


#: Prepares every reducer as a new process does, and names what that compiled.
PREPARED = """
import sys
from importlib import import_module
from ffb.reduce import TileReducer
from ffb.loops.fuse import plain
from ffb.testing.guard import Compiled
with Compiled() as compiled:
    for name in sys.argv[1:]:
        module = import_module(f"ffb.reducers.{name}")
        r, (params, where, *_) = getattr(module, name), module.example()
        if isinstance(r, TileReducer):
            r.allocate(constants := r.prepare(params, where))
        else:
            r.remembered(constants := r.constants(params, where))
        r.coordinates(params, constants)
print(*compiled.names, sep="\\n")
"""


def test_a_reducer_is_prepared_without_the_compiler():
    """What is compiled there is in no cache: every process would wait for it."""
    command = [sys.executable, "-W", "ignore", "-c", PREPARED, *NAMES]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == []


def areas(shape):
    """Dark, saturated, negative, one pixel lit in the last corner, NaN but for one pixel."""
    size = int(np.prod(shape))
    full = np.linspace(30_000, 29_000, size, dtype=np.float32).reshape(shape)
    corner = np.zeros(shape, np.float32)
    corner[-1, -1, -1] = 500.0
    hole = np.full(shape, np.nan, np.float32)
    hole[0, 0, 0] = 100.0
    ramp = np.linspace(-100, 30_000, size, dtype=np.float32).reshape(shape)
    return [{"image": a} for a in (0 * full, full, -full, corner, hole, ramp)]


def reduced_or_refused(found, params, where, frames):
    """Where parameters have no room, that is said in a sentence."""
    try:
        found.prepare(params, where)
    except ValueError as error:
        said = str(error)
        assert ": " in said, said
    else:
        check_reducer(found, params, where, frames)


@pytest.mark.parametrize("name", TILES)
def test_an_area_that_nobody_wants(name):
    found, params, where = example(name)
    check_reducer(found, params, where, areas(where.shape))


@PLAIN
@pytest.mark.parametrize("name", TILES)
def test_an_area_without_a_good_pixel(name):
    found, params, where = example(name)
    dark = where._replace(mask=np.zeros_like(where.mask))
    reduced_or_refused(found, params, dark, areas(where.shape)[:2])


@PLAIN
@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize("shape", ODD)
def test_an_area_of_odd_shape_is_reduced_or_refused(name, shape):
    found, params, where = example(name)
    xyz = None if where.xyz is None else 75.0 * np.indices(shape, np.float64)[[1, 2, 0]]
    odd = where._replace(shape=shape, mask=np.ones(shape, np.bool_), xyz=xyz)
    if "segment" in (params._fields if params else ()):
        params = params._replace(segment=0)
    reduced_or_refused(found, params, odd, areas(shape))


@pytest.mark.parametrize("name", SHOTS)
def test_frames_that_nobody_wants(name):
    found, params, where = example(name)
    shots = []
    for kind in ("dark", "full", "least", "spike", "ramp"):
        shot = {}
        for argument, i in where.items():
            dtype, size = np.dtype(i.dtype), max(1, int(np.prod(i.shape)))
            whole = dtype.kind in "iu"
            most = np.iinfo(dtype).max if whole else 30_000.0
            least = np.iinfo(dtype).min if whole else -30_000.0
            flat = {
                "dark": np.zeros(size), "full": np.full(size, most), "least": np.full(size, least),
                "spike": np.where(np.arange(size) == size - 1, most, 0),
                "ramp": np.linspace(least, most, size),
            }[kind]  # fmt: skip
            shot[argument] = flat.astype(dtype).reshape(i.shape)
        shots.append(shot)
    check_reducer(found, params, where, shots)
