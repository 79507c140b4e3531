"""Every mistake in a configuration is told, all at once, where it is."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.config import ConfigError, parse
from ffb.configuration import resolve
from ffb.configuration.problems import nearest
from tests.unit.problems_of import LOCAL, SYNTHETIC, problems_of

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
        ["batch.qq: unknown key; known: age_ms, shots, sums_s, together"],
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
    "chunks": (
        '[batch]\nshots = 100\n[writer]\ncompression = "bitshuffle-lz4"',
        [
            'batch.shots: with writer.compression = "bitshuffle-lz4" a power of two up to 1024'
            " is needed, got 100",
        ],
    ),
    "large chunks": (
        '[batch]\nshots = 2048\n[writer]\ncompression = "bitshuffle-zstd"',
        [
            'batch.shots: with writer.compression = "bitshuffle-zstd" a power of two up to 1024'
            " is needed, got 2048",
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
    "environment variables": (
        '[writer]\nscratch = "$SCRATCH/{exp}"',
        [
            "writer.scratch: environment variables are not filled in: write '$SCRATCH/{exp}' out,"
            " or give it on the command line, where the shell does it: --set"
            " writer.scratch=$SCRATCH",
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
            "reducers.b.use: './mine.py:NUMBER' is not a reducer but 3; declare it with @reducer",
            "reducers.c.params: ./mine.py holds no 'of_rum'; did you mean 'of_run'?",
            "reducers.d.use: cannot import no.such: ModuleNotFoundError: No module named 'no'",
            "reducers.d.params: ./mine.py:NUMBER is not a function of the run",
        ],
    ),
    "lists": (
        '[inputs]\nw = { detector = "d", field = "f" }\n'
        '[sums]\na = { input = "w", what = ["sum"] }\nb = { input = "w", what = [] }',
        [
            "sums.a.what[0]: 'sum': begins with \"calib\" or \"raw\", such as"
            ' "calib_thresADU5_nhits"',
            "sums.b.what: give a list of at least 1, got 0",
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
            'source: give shmem = "tag" for live data, or dir = "folder" for files',
        ),
        (
            '[source]\nkind = "psana"\nexp = "mfxx49820"\nshmem = "a"\nlive = true',
            "source: live = true is for growing files; name their dir",
        ),
        (
            '[source]\nkind = "psana"\nexp = "mfxx49820"\nshmem = "a"\ndir = "b"',
            'source: give shmem = "tag" for live data, or dir = "folder" for files, not both',
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
        "--set b=[1: '[1' is not a TOML value: Unclosed array (at end of document)",
    ]
    path = write("[source]\nkind = = 3\n")
    assert problems_of(path) == [
        f"{path}: not valid TOML: Invalid value (at line 2, column 8); a text needs quotes"
    ]
    path.write_bytes(b"x = '\xff'")
    assert problems_of(path) == [f"{path}: not UTF-8 text (byte 5): is this a TOML file?"]
    path = write('layer = "mxf"\n')
    assert problems_of(path) == [
        f"{path}: layer: no file 'mxf' beside it, no such hutch; known: cxi, mec, mfx, rix,"
        " tmo, txi, ued, xcs, xpp"
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


def test_of_hundreds_of_names_some_are_listed():
    names = [f"a{i}" for i in range(200)]
    assert nearest("something", names).endswith("a133, ...")
    assert nearest("something", names[:3]) == "known: a0, a1, a2"


def test_the_last_part_of_one_name_alone_stands_for_it():
    known = ["lightStatus.laser", "spot/sum", "halo/sum"]
    assert nearest("laser", known) == "did you mean 'lightStatus.laser'?"
    assert nearest("sum", known) == "known: halo/sum, lightStatus.laser, spot/sum"
