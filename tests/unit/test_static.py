"""Reading a Python file without running it, against Python that runs it."""

import time
from itertools import pairwise

import pytest

from ffb.migrate.static import Module
from ffb.migrate.static_values import Unread
from tests.unit.prod_configs import CHAINS, HOSTILE, LITERAL, STEPWISE

RUNS = range(1, 70)


def plain(value: object) -> object:
    """Containers without numpy, tuples or subclasses."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def by_run(module: Module, name: str, run: int) -> object:
    (found,) = [r for r in module.of_runs(name) if r.first <= run and (r.last or run) >= run]
    assert not found.unread
    return plain(found.value)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        (STEPWISE.replace("from somewhere import something", ""), "getROIs"),
        (LITERAL, "getAzIntParams"),
        (CHAINS, "getDropletParams"),
    ],
)
def test_it_says_what_running_it_would_give(text, function):
    module, names = Module(text), {}
    exec(compile(text, "config", "exec"), names)  # our own text
    assert module.unread == ()
    assert len(module.of_runs(function)) > 1
    for run in RUNS:
        assert by_run(module, function, run) == plain(names[function](run)), run


@pytest.mark.parametrize(
    "text",
    [
        "run > 7",
        "run >= 7.5",
        "not run < 7",
        "5 < run <= 9",
        "9 > run",
        "run == 7 or run == 9",
        "run in (3, 1)",
        "run not in range(4, 9)",
        "run in []",
        "run != 7 and run < 1e9",
        "(run < 5) == (run < 7)",
        "(True if run < 4 else run > 60)",
        "len([1, 2]) < run",
        "run < float('inf')",
    ],
)
def test_conditions_hold_for_the_runs_they_hold_for(text):
    module = Module(f"def f(run):\n    return 1 if {text} else 0")
    for run in RUNS:
        assert by_run(module, "f", run) == int(eval(text, {"run": run})), run
    readings = module.of_runs("f")
    assert readings[0].first == 1
    assert readings[-1].last is None
    assert all(a.last + 1 == b.first for a, b in pairwise(readings))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("run + 1", "computed from the number of the run"),
        ("f'{run:04d}'", "computed from the number of the run"),
        ("{5: 1}[run]", "computed from the number of the run"),
        ("np.load('x.npy')", r"np.load\(...\) would have to be run"),
        ("nothing", "nothing is not known"),
        ("1 / 0", "division by zero"),
        ("[1][5]", "out of range"),
        ("lambda: 1", "is not read"),
        ("f(run)", "calls itself"),
        ("2 ** 10 ** 9", "too large"),
        ("10 ** 10 ** 10 ** 10", "too large"),
        ("[0] * 10 ** 9", "more than a configuration has"),
        ("'x' * 10 ** 9", "more than a configuration has"),
        ("list(range(10 ** 12))", "more than a configuration has"),
        ("np.arange(0, 1, 1e-9)", "more than a configuration has"),
        ("'%99999999d' % 5", "are not read"),
        ("f'{5:>999999999}'", "format is not read"),
        ("str([0])", "only a number"),
        ("'a'.__class__", "is not read"),
        ("'{0.__class__}'.format(1)", "format is not read"),
        ("'{:>999999999}'.format(1)", "format is not read"),
        ("'{0[0]}'.format('a')", "format is not read"),
        ("'{}'.format([1])", "only numbers and texts"),
        ("open('x').format(1)", "would have to be run"),
    ],
)
def test_what_is_not_read_says_why(text, why):
    (found,) = Module(f"def f(run):\n    return {text}").of_runs("f")
    assert isinstance(found.value, Unread)
    assert found.value.line in (1, 2)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.value.why)


def test_statements_that_are_not_read_are_told_with_their_lines():
    text = (
        "def f(run):\n    x = {}\n    while run:\n        pass\n    x[1] = open('x')\n    return x"
    )
    (found,) = Module(text).of_runs("f")
    assert found.unread == (Unread(3, "a while statement is not read"),)
    assert found.value == {1: Unread(5, "open(...) would have to be run")}
    assert found.value.lines == {1: 5}


@pytest.mark.parametrize(
    "body",
    [
        "x = [1]\n    for i in range(60):\n        x = [x, x]\n    return x",
        "x = [1]\n    for i in range(60):\n        x.extend(x)\n    return x",
        "x = []\n    x.append(x)\n    return x",
        "x = {}\n    x['x'] = x\n    return x",
        "x = 'ab'\n    for i in range(60):\n        x = f'{x}{x}'\n    return x",
        "for i in range(9999):\n        for j in range(9999):\n            x = 1\n    return x",
        "x = 3\n    for i in range(60):\n        x = x * x\n    return x",
    ],
)
def test_what_grows_without_end_is_given_up(body):
    began = time.process_time()
    (found,) = Module(f"def f(run):\n    {body}").of_runs("f")
    assert isinstance(found.value, Unread) or found.unread
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "text",
    ["'epix_{}'.format(1)", "'{0}{1:02d}{x}'.format('a', 3, x=2.5)", "'{:.2f}'.format(1 / 3)"],
)
def test_plain_formats_are_filled_in(text):
    (found,) = Module(f"def f(run):\n    return {text}").of_runs("f")
    assert found.value == eval(text)


def test_conditions_without_end_have_an_end():
    text = "def f(run):\n    return 1 if run in list(range(0, 900, 2)) else 0"
    readings = Module(text).of_runs("f")
    assert len(readings) == 201
    assert readings[-1].value == Unread(1, "takes more than 200 ways")
    assert readings[-1].last is None


@pytest.mark.parametrize("text", ["def f(:", "x = 1\0", "(" * 5000, "-" * 200_000 + "1"])
def test_what_is_no_python_is_refused(text):
    with pytest.raises(ValueError, match=r"no Python|nested"):
        Module(text)


def test_what_is_nested_deeply_is_not_read():
    nested = " + ".join(["1"] * 400)
    (found,) = Module(f"def f(run):\n    return {nested}").of_runs("f")
    assert isinstance(found.value, Unread) or found.value == 400
    assert Module("").functions == {}


def test_nothing_is_ever_run(tmp_path):
    path = tmp_path / "touched"
    module = Module(HOSTILE.format(path=str(path)))
    for name in module.functions:
        module.of_runs(name)
    assert not path.exists()
    assert len(module.unread) >= 5
    assert isinstance(module.constants["TOUCHED"], Unread)
