"""Configurations: layers, run ranges, types, and every mistake told at once."""

import os
import stat
import tomllib
from itertools import combinations
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb import endpoints, layers, resolve
from ffb.config import Config, ConfigError, load, parameters, parse
from ffb.runs import RunRange, RunTable, overlaps
from ffb.shot import Field

DEPLOY = Path(__file__).parents[2] / "deploy"

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

SYNTHETIC = '[source]\nkind = "synthetic"\n'


@pytest.fixture
def write(tmp_path):
    """Write a file beside the local reducer; returns its path."""
    (tmp_path / "mine.py").write_text(LOCAL)

    def _write(text: str, name: str = "exp.toml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text))
        return path

    return _write


def problems_of(path, overrides=()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


# -- run ranges ----------------------------------------------------------------------------------

firsts = st.integers(0, 30)
ranges = st.builds(
    lambda first, length: RunRange(first, None if length is None else first + length),
    firsts,
    st.none() | st.integers(0, 10),
)
RUNS = range(50)


@given(ranges)
def test_a_range_reads_back_from_its_text(r):
    assert RunRange.parse(str(r)) == r


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("1-41", 1, 41), ("42-", 42, None), ("7", 7, 7), (7, 7, 7), ("-5", 0, 5), (" 3 - 4 ", 3, 4)],
)
def test_ranges_as_people_write_them(text, first, last):
    assert RunRange.parse(text) == (first, last)


@pytest.mark.parametrize("text", ["", "-3-", "x", "1,2", "1--2", None, True, 3.0, -1, [1], "１-２"])
def test_a_range_nobody_can_read_is_refused(text):
    with pytest.raises(ValueError, match='as runs; write "1-41", "42-", "7" or "-5"'):
        RunRange.parse(text)


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="runs '41-1' end before they begin; write \"1-41\""):
        RunRange.parse("41-1")


@given(st.lists(ranges, max_size=6))
def test_overlaps_are_found_if_and_only_if_there_are_any(rs):
    found = list(overlaps(rs))
    brute = any(any(n in a and n in b for n in RUNS) for a, b in combinations(rs, 2))
    assert bool(found) == brute
    for a, b in found:
        assert any(n in a and n in b for n in RUNS)


@given(st.lists(ranges, min_size=1, max_size=6), st.sampled_from(RUNS))
def test_for_run_agrees_with_looking_at_every_range(rs, run):
    table, _ = RunTable.parse([{"runs": str(r), "i": i} for i, r in enumerate(rs)])
    brute = [i for i, r in enumerate(rs) if r.first <= run <= (run if r.last is None else r.last)]
    if brute:
        assert table.for_run(run)["i"] == brute[0]
    else:
        with pytest.raises(LookupError, match=f"nothing is given for run {run}; given are runs "):
            table.for_run(run)


def test_a_table_without_runs_holds_for_all():
    table, problems = RunTable.parse({"a": 1})
    assert problems == []
    assert table.for_run(0) == table.for_run(10**6) == {"a": 1}


def test_a_run_nobody_thought_of_is_told_with_the_ranges_there_are():
    table, _ = RunTable.parse([{"runs": "10-"}, {"runs": "-5"}])
    with pytest.raises(LookupError, match='run 7; given are runs "-5", "10-"'):
        table.for_run(7)


# -- layers --------------------------------------------------------------------------------------

keys = st.sampled_from("abc")
scalars = st.integers(0, 9) | st.lists(st.integers(0, 3), max_size=2)
tables = st.recursive(
    st.dictionaries(keys, scalars, max_size=3),
    lambda inner: st.dictionaries(keys, scalars | inner, max_size=3),
    max_leaves=8,
)


def leaves(table, at=()):
    for k, v in table.items():
        if isinstance(v, dict):
            yield from leaves(v, (*at, k))
        else:
            yield (*at, k), v


def hidden(path, above) -> bool:
    """Whether ``above`` sets ``path``, or a scalar on the way to it."""
    for step in path:
        if not isinstance(above, dict):
            return True
        if step not in above:
            return False
        above = above[step]
    return True


@given(tables, tables)
def test_a_leaf_survives_where_the_layer_above_says_nothing(below, above):
    wanted = {p: v for p, v in leaves(below) if not hidden(p, above)} | dict(leaves(above))
    assert dict(leaves(layers.merge(below, above))) == wanted


@given(tables)
def test_merging_with_nothing_changes_nothing(table):
    assert layers.merge(table, {}) == layers.merge({}, table) == table


def test_a_table_of_another_kind_replaces_as_a_whole():
    below = {"source": {"kind": "psana", "exp": "mfxx49820", "shmem": "psana0"}}
    assert layers.merge(below, {"source": {"kind": "synthetic"}}) == {
        "source": {"kind": "synthetic"}
    }
    assert layers.merge(below, {"source": {"shmem": "other"}})["source"] == {
        "kind": "psana", "exp": "mfxx49820", "shmem": "other",
    }  # fmt: skip


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
    | st.datetimes() | st.dates(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_reads_back_equal(data):
    assert tomllib.loads(layers.dump(data)) == data


def test_the_hutch_file_is_found_beside_the_experiments_or_by_name(write):
    write("[batch]\nshots = 7\nage_ms = 9\n", "tmo.toml")
    path = write('layer = "tmo"\n[batch]\nage_ms = 10\n' + SYNTHETIC)
    assert load(path).batch.model_dump() == {"shots": 7, "age_ms": 10.0}
    by_path = write('layer = "./tmo.toml"\n' + SYNTHETIC)
    assert load(by_path).batch.shots == 7
    named = load(write('layer = "xpp"\n' + SYNTHETIC))
    assert (named.hutch, named.light.xray.off) == ("xpp", (162,))


def test_the_resolved_text_loads_to_an_equal_configuration(write):
    path = write('layer = "mfx"\n' + SYNTHETIC + '[inputs]\n"tt/a" = { detector="d", field="f" }\n')
    config = load(path, ["batch.shots=3", "source.exp=mfxx1"])
    again = load(write(config.text, "again.toml"))
    assert again.model_dump() == config.model_dump()
    assert "layer" not in tomllib.loads(config.text)
    assert config.text.startswith(f"# {layers.HUTCHES / 'mfx.toml'}\n# {path}\n# --set batch")
    assert (config.path, config.overrides) == (path, ("batch.shots=3", "source.exp=mfxx1"))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a.b=3", {"a": {"b": 3}}),
        ("a = [1, 2]", {"a": [1, 2]}),
        ('a="x y"', {"a": "x y"}),
        ("a=mfxx49820", {"a": "mfxx49820"}),
        ("a=../mfx/x.toml", {"a": "../mfx/x.toml"}),
        ("a=true", {"a": True}),
        ("a={ b = 1 }", {"a": {"b": 1}}),
        ('inputs."tt.x".unit=px', {"inputs": {"tt.x": {"unit": "px"}}}),
        ("inputs.tt/x.unit=px", {"inputs": {"tt/x": {"unit": "px"}}}),
    ],
)
def test_an_override_is_toml_or_a_plain_word(text, data):
    assert layers.override(text).data == data


# -- mistakes ------------------------------------------------------------------------------------

MISTAKES = {
    "mistyped key": (
        '[inputs]\njungfrau = { detecor = "jungfrau", field = "raw" }',
        [
            "inputs.jungfrau.detector: missing: detector as the DAQ names it",
            "inputs.jungfrau.detecor: unknown key; did you mean 'detector'?",
        ],
    ),
    "mistyped section": ("[wirter]\n", ["wirter: unknown key; did you mean 'writer'?"]),
    "unlike any key": (
        "[batch]\nqq = 1",
        ["batch.qq: unknown key; known: age_ms, shots"],
    ),
    "wrong type": (
        '[batch]\nshots = "100"\nage_ms = [1]\n[run]\ndashboard = 1\nproducers = 1.5',
        [
            "batch.shots: expected an integer, got '100'",
            "batch.age_ms: expected a number, got [1]",
            "run.producers: expected an integer, got 1.5",
            "run.dashboard: expected true or false, got 1",
        ],
    ),
    "out of range": (
        "[batch]\nshots = 0\n[light]\nxray = { on = [288] }",
        [
            "light.xray.on[0]: must be less than 288, got 288",
            "batch.shots: must be greater than or equal to 1, got 0",
        ],
    ),
    "no table": ("batch = 3\ninputs = 4", [
        "inputs: expected a table, got 4", "batch: expected a table, got 3",
    ]),
    "calibration": (
        '[inputs]\njf = { detector = "jungfrau", field = "raw" }\n'
        '[calibration]\njungfrau = "non"\njungfrua = "none"\nepix = { pedestal = "x" }',
        [
            "calibration.jungfrau: expected 'none', got 'non'",
            "calibration.epix.pedestal: unknown key; did you mean 'pedestals'?",
            "calibration.jungfrua: no input is from this detector; did you mean 'jungfrau'?",
        ],
    ),
    "endpoints": (
        f'[transport]\naggregator = "localhost:5"\nviews = "ipc:///{"x" * 100}"',
        [
            'transport.aggregator: expected "ipc://path" or "tcp://host:port",'
            " got 'localhost:5'",
            "transport.views: socket paths end at 100 characters, this has 101",
        ],
    ),
    "file names": (
        '[writer]\nscratch = "{scratch}"\ndirectory = "{exp"\nname = "all.h5"',
        [
            "writer.scratch: cannot fill in '{scratch}'; known: {exp}, {hutch}",
            "writer.directory: cannot fill in '{exp'; known: {scratch}, {exp}, {hutch}",
            "writer.name: expected a file name with {run} in it, got 'all.h5'",
        ],
    ),
    "unknown reducer": (
        '[reducers.a]\nuse = "rio"',
        ["reducers.a.use: no reducer 'rio'; did you mean 'roi'?"],
    ),
    "unknown inputs": (
        '[inputs]\narea = { detector = "area", field = "raw" }\n'
        '[reducers.a]\nuse = "roi"\ninputs = "aera"\nparams = { rows = [0, 1], cols = [0, 1] }\n'
        '[reducers.b]\nuse = "roi"\ninputs = { imag = "area" }\n'
        "params = { rows = [0, 1], cols = [0, 1] }\n"
        '[reducers.c]\nuse = "./mine.py:ratio"\ninputs = "area"\nparams = { gate = [0, 1] }',
        [
            "reducers.a.inputs: no input 'aera'; did you mean 'area'?",
            "reducers.b.inputs.imag: no argument of roi; did you mean 'image'?",
            "reducers.b.inputs.image: missing: which input roi gets",
            'reducers.c.inputs: ratio takes several; write { wf = "...", i0 = "..." }',
        ],
    ),
    "no inputs at all": (
        '[reducers.a]\nuse = "roi"\ninputs = "area"\nparams = { rows = [0, 1], cols = [0, 1] }',
        ["reducers.a.inputs: no input 'area'; there are none"],
    ),
    "parameters": (
        '[inputs]\nw = { detector = "d", field = "f" }\n'
        '[reducers.a]\nuse = "./mine.py:ratio"\ninputs = { wf = "w", i0 = "w" }\n'
        'params = { gaet = [1, 2], scale = "1", levels = [1, "x"], label = 1, fast = 0,'
        " only = 1.0 }",
        [
            "reducers.a.params.gaet: unknown key; did you mean 'gate'?",
            "reducers.a.params.gate: missing: a list of 2 integers",
            "reducers.a.params.scale: expected a number, got '1'",
            "reducers.a.params.levels: expected a list of numbers, got [1, 'x']",
            "reducers.a.params.label: expected a text, got 1",
            "reducers.a.params.fast: expected true or false, got 0",
            "reducers.a.params.only: expected an integer, got 1.0",
        ],
    ),
    "run ranges": (
        '[inputs]\nw = { detector = "d", field = "f" }\n'
        '[reducers.a]\nuse = "./mine.py:ratio"\ninputs = { wf = "w", i0 = "w" }\n'
        'params = [ { runs = "1-41", gate = [0, 1] }, { runs = "40-", gate = [0, 1, 2] },'
        ' { runs = "x", gate = 3 }, { gate = [0, 1] } ]\n'
        "[reducers.b]\n"
        'use = "./mine.py:ratio"\ninputs = { wf = "w", i0 = "w" }\nparams = 3\n',
        [
            "reducers.b.params: expected a table, tables with `runs`,"
            ' or "./file.py:function"; got 3',
            "reducers.a.params[2].runs: cannot read 'x' as runs;"
            ' write "1-41", "42-", "7" or "-5"',
            'reducers.a.params[3].runs: missing: say which runs, such as "42-"',
            'reducers.a.params: runs "1-41" and "40-" overlap; a run may have one table only',
            "reducers.a.params[1].gate: expected a list of 2 integers, got [0, 1, 2]",
        ],
    ),
    "names of functions": (
        '[inputs]\nw = { detector = "d", field = "f" }\n'
        '[reducers.a]\nuse = "./mine.py:ratoi"\n[reducers.b]\nuse = "./mine.py:NUMBER"\n'
        '[reducers.c]\nuse = "./mine.py:ratio"\ninputs = { wf = "w", i0 = "w" }\n'
        'params = "./mine.py:of_rum"\n'
        '[reducers.d]\nuse = "no.such:thing"\nparams = "./mine.py:NUMBER"\n',
        [
            "reducers.a.use: ./mine.py holds no 'ratoi'; did you mean 'ratio'?",
            "reducers.b.use: './mine.py:NUMBER' is no reducer but 3; declare it with @reducer",
            "reducers.c.params: ./mine.py holds no 'of_rum'; did you mean 'of_run'?",
            "reducers.d.use: cannot import no.such: ModuleNotFoundError: No module named 'no'",
            "reducers.d.params: ./mine.py:NUMBER is no function of the run",
        ],
    ),
    "key with a dot": (
        '[inputs]\n"a.b" = { detector = "d" }',
        ["inputs.\"a.b\".field: missing: field of the detector: \"raw\", or"
         " \"ttfex.fltpos\" where it is not psana's `raw` interface"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_where_it_is_with_what_is_known(write, text, wanted):
    ahead, tables = [], text
    if not text.startswith("["):
        ahead, tables = [text], ""
    assert problems_of(write("\n".join([*ahead, SYNTHETIC, tables]))) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "source: missing: where shots come from"),
        ("[source]", "source.kind: missing: one of psana, files, synthetic, replay"),
        ('[source]\nkind = "psanna"', "source.kind: no source 'psanna'; did you mean 'psana'?"),
        (
            '[source]\nkind = "psana"\nshmem = "x"',
            'source.exp: missing: experiment, such as "mfxx49820"',
        ),
        (
            '[source]\nkind = "psana"\nexp = "mfxx49820"',
            'source: needs one of shmem = "tag" and dir = "folder"',
        ),
        (
            '[source]\nkind = "psana"\nexp = "mfxx49820"\nshmem = "a"\nlive = true',
            "source: live = true is for growing files; name their dir",
        ),
        (
            '[source]\nkind = "psana"\nexp = "mfxx49820"\nshmem = "a"\ndir = "b"',
            'source: needs one of shmem = "tag" and dir = "folder"',
        ),
        (
            '[source]\nkind = "files"\npaths = ["a"]\ndir = "b"\nexp = "mfxx49820"',
            "source: needs paths = [...], or both dir and exp",
        ),
        ('[source]\nkind = "files"', "source: needs paths = [...], or both dir and exp"),
        (
            '[source]\nkind = "synthetic"\nrat = 3',
            "source.rat: unknown key; did you mean 'rate'?",
        ),
        ('[source]\nkind = "replay"', "source.path: missing: the capture"),
    ],
)
def test_a_source_that_cannot_be(write, text, wanted):
    assert problems_of(write(text)) == [wanted]


def test_everything_is_told_at_once(write):
    both = ["mistyped key", "wrong type", "unknown reducer"]
    text = SYNTHETIC + "\n".join(MISTAKES[k][0] for k in both)
    assert sorted(problems_of(write(text))) == sorted(w for k in both for w in MISTAKES[k][1])


def test_a_problem_of_another_layer_names_it(write):
    hutch = write("[batch]\nshot = 1\n", "tmo.toml")
    path = write('layer = "tmo"\n' + SYNTHETIC + "[run]\nproducer = 1\n")
    assert problems_of(path, ["dashboard.port=no"]) == [
        f"batch.shot: unknown key; did you mean 'shots'? (in {hutch})",
        "dashboard.port: expected an integer, got 'no' (in --set dashboard.port=no)",
        "run.producer: unknown key; did you mean 'producers'?",
    ]


def test_a_problem_is_blamed_on_the_uppermost_layer_that_sets_the_key(write):
    write("[batch]\nshots = 0\n", "tmo.toml")
    path = write('layer = "tmo"\n' + SYNTHETIC + "[batch]\nshots = -1\n")
    wanted = "batch.shots: must be greater than or equal to 1, got -1"
    assert problems_of(path) == [wanted]


def test_a_local_file_is_run_once_until_it_is_edited(write, tmp_path):
    write("", "x.toml")
    first = resolve.function("./mine.py:of_run", tmp_path)
    assert resolve.function("./mine.py:of_run", tmp_path) is first
    (tmp_path / "mine.py").write_text(LOCAL.replace("run + 1", "run + 2"))
    assert resolve.function("./mine.py:of_run", tmp_path)(1).gate == (1, 3)
    (tmp_path / "mine.py").write_text("1 / 0")
    with pytest.raises(LookupError, match=r"cannot run .*mine.py: ZeroDivisionError: division"):
        resolve.function("./mine.py:of_run", tmp_path)


def test_files_that_cannot_be_read_and_overrides_are_told_together(write, tmp_path):
    assert problems_of(tmp_path / "none.toml", ["a", "b=[1"]) == [
        f"{tmp_path}/none.toml: cannot read: no such file or directory",
        "--set a: expected path=value, such as source.rate=120",
        "--set b=[1: '[1' is no TOML value: Unclosed array (at end of document)",
    ]
    path = write("[source]\nkind = = 3\n")
    assert problems_of(path) == [f"{path}: no valid TOML: Invalid value (at line 2, column 8)"]
    path.write_bytes(b"x = '\xff'")
    assert problems_of(path) == [f"{path}: no UTF-8 text (byte 5): is this a TOML file?"]
    path = write('layer = "mxf"\n')
    assert problems_of(path) == [
        f"{path}: layer: no file 'mxf' beside it, no such hutch; known: mfx, xpp"
    ]
    path = write("layer = 3\n")
    assert problems_of(path) == [f"{path}: layer: expected the name or path of a TOML file, got 3"]
    path = write('layer = "exp.toml"\n')
    assert problems_of(path) == [f"{path}: layer: exp.toml stands on itself"]


WORDS = """source kind psana synthetic exp inputs area detector field shape reducers use roi params
runs rows cols 1-41 calibration none light xray on writer name {run} transport views ./x.py:y"""
words = st.sampled_from(WORDS.split())
anything = st.recursive(
    st.floats() | st.integers(-2, 300) | st.booleans() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


def table_of(*keys):
    return st.dictionaries(st.sampled_from(keys) | words, anything, max_size=4)


sections = st.fixed_dictionaries(
    {"source": st.just({"kind": "synthetic"}) | table_of("kind", "exp") | anything},
    optional={
        "inputs": st.dictionaries(words, table_of("detector", "field"), max_size=2) | anything,
        "reducers": st.dictionaries(words, table_of("use", "inputs", "params"), max_size=2)
        | anything,
        "calibration": st.dictionaries(words, table_of("gain", "edges"), max_size=2) | anything,
        "light": table_of("xray", "laser") | anything,
        "writer": table_of("name", "scratch") | anything,
        "transport": table_of("views", "window_mb") | anything,
        "layer": anything,
    },
)


@given(sections)
def test_nonsense_is_refused_in_sentences_and_never_crashes(data):
    problems, again = ["fine: so far"], None
    try:
        again = parse(tomllib.loads(parse(data).text))
    except ConfigError as e:
        problems = e.problems
    assert problems
    assert all(": " in p and "\n" not in p for p in problems)
    assert again is None or again.text == parse(data).text


# -- what a configuration tells ------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("examples/*.toml")), ids=lambda p: p.name)
def test_every_example_loads(path):
    assert load(path).exp


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("hutches/*.toml")), ids=lambda p: p.name)
def test_every_hutch_carries_an_experiment(write, path):
    config = load(write(f'layer = "{path.stem}"\n' + SYNTHETIC))
    assert config.hutch == path.stem


def test_fields_without_a_dot_belong_to_raw():
    config = parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": {
                "area": {"detector": "jungfrau", "field": "raw"},
                "tt/fltpos": {"detector": "opal", "field": "ttfex.fltpos"},
                "deep": {"detector": "hsd", "field": "fex.corr.baseline", "shape": [4, 2]},
            },
        }
    )
    assert config.fields == {
        "area": Field("jungfrau", "raw", "raw"),
        "tt/fltpos": Field("opal", "ttfex", "fltpos"),
        "deep": Field("hsd", "fex", "corr.baseline"),
    }
    assert config.shapes == {"deep": (4, 2)}


def test_parameters_by_run_and_by_function(write):
    path = write(
        SYNTHETIC
        + """
        [inputs]
        w = { detector = "d", field = "f" }
        [reducers.a]
        use = "./mine.py:ratio"
        inputs = { wf = "w", i0 = "w" }
        params = [{ runs = "-9", gate = [0, 1] }, { runs = "10-", gate = [2, 3], scale = 2 }]
        [reducers.b]
        use = "./mine.py:ratio"
        inputs = { wf = "w", i0 = "w" }
        params = "./mine.py:of_run"
        """
    )
    a, b = load(path).reducers.values()
    assert a.params_for(9) == {"gate": [0, 1]}
    assert a.params_for(10) == {"gate": [2, 3], "scale": 2}
    assert (a.function, b.function) == ("", "./mine.py:of_run")
    with pytest.raises(TypeError, match="of_run gives these parameters: call it with the run"):
        b.params_for(1)


class Params(NamedTuple):
    gate: tuple[int, int]
    scale: float = 1.0
    only: tuple[float, float] | float | None = None


def test_parameters_become_the_declared_types():
    assert parameters(Params, {"gate": [1, 2], "scale": 3}) == Params((1, 2), 3.0)
    assert isinstance(parameters(Params, {"gate": [1, 2], "scale": 3}).scale, float)
    assert parameters(Params, {"gate": [1, 2], "scale": float("inf")}).scale == float("inf")
    assert parameters(None, {}) is None


@pytest.mark.parametrize(
    ("declared", "values", "wanted"),
    [
        (None, {"a": 1}, ["a: unknown key; there are none"]),
        (Params, {"gate": [True, 2]}, ["gate: expected a list of 2 integers, got [True, 2]"]),
        (
            Params,
            {"gate": [1, 2], "only": "x"},
            ["only: expected a list of 2 numbers or a number, got 'x'"],
        ),
    ],
)
def test_parameters_that_do_not_fit(declared, values, wanted):
    with pytest.raises(ConfigError) as caught:
        parameters(declared, values)
    assert list(caught.value.problems) == wanted


def test_where_the_file_goes(write, tmp_path):
    config = load(write('hutch = "mfx"\n' + SYNTHETIC))
    assert config.file("tstx00001", 7) == tmp_path / "hdf5/smalldata/tstx00001_Run0007.h5"
    config = load(write(SYNTHETIC + '[writer]\nscratch = "/s/{hutch}/{exp}"\nname = "r{run}"\n'))
    assert config.file("xppx1", 12) == Path("/s/xpp/xppx1/hdf5/smalldata/r12")
    assert config.locate("~/x") == Path.home() / "x"


def test_every_key_is_described_in_the_json_schema():
    schema = Config.model_json_schema()
    models = {"Config": schema, **schema["$defs"]}
    for name, model in models.items():
        assert model["description"]
        assert model["additionalProperties"] is False, name
        for key, about in model["properties"].items():
            linked = models.get(about.get("$ref", "").rpartition("/")[2], about)
            assert linked.get("description") or key == "kind", f"{name}.{key}"


# -- where processes meet ------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(endpoints, "FALLBACK", tmp_path / "fallback")
    return tmp_path


def test_sockets_lie_in_a_folder_of_ones_own(write, runtime):
    path = write(SYNTHETIC)
    here = load(path).endpoints()
    assert here == load(path).endpoints()
    for address in here:
        folder = Path(address.removeprefix("ipc://")).parent
        assert folder.is_relative_to(runtime / "ffb")
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert len(address.removeprefix("ipc://")) <= endpoints.IPC_LENGTH
    assert len(set(here)) == 2
    other = load(write(SYNTHETIC, "other.toml")).endpoints()
    assert not set(here) & set(other)


def test_named_endpoints_stay_as_they_are(write, runtime):
    text = SYNTHETIC + '[transport]\naggregator = "tcp://127.0.0.1:5555"\n'
    here = load(write(text)).endpoints()
    assert here.aggregator == "tcp://127.0.0.1:5555"
    assert here.views.startswith(f"ipc://{runtime}/ffb/")
    both = load(write(text + 'views = "tcp://127.0.0.1:5556"\n'))
    assert both.endpoints() == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")


def test_a_runtime_folder_too_deep_for_a_socket_is_not_used(runtime, monkeypatch):
    deep = runtime / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert endpoints.private_folder("tstx00001", "f").is_relative_to(runtime / "fallback")


def _open_to_the_group(folder):
    folder.chmod(0o750)


def _replace_by_a_link(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@pytest.mark.parametrize("spoil", [_open_to_the_group, _replace_by_a_link])
def test_a_folder_that_is_not_ones_own_is_refused(runtime, spoil):
    (runtime / "ffb").mkdir(mode=0o700)
    spoil(runtime / "ffb")
    with pytest.raises(PermissionError, match="is not a folder of yours alone"):
        endpoints.private_folder("tstx00001", "f")
