"""The command line: help, exit status, errors on one line, and what each command is given."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ffb.reader
from ffb import cli
from ffb.config import parameters, parse
from ffb.configuration.resolve import installed, reducer
from ffb.service import examples, processes, show

ROOT = Path(__file__).parents[2]

SYNTHETIC = """
[source]
kind = "synthetic"
shots = 5

[inputs]
area = { detector = "area", field = "raw" }
energy = { detector = "gasdet", field = "energy", unit = "mJ", record = true }

[reducers.spot]
use = "roi"
inputs = "area"

[[reducers.spot.params]]
runs = "1-41"
rows = [10, 50]
cols = [20, 100]

[[reducers.spot.params]]
runs = "42-"
rows = [10, 50]
cols = [20, 200]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "exp.toml"
    path.write_text(SYNTHETIC)
    return path


@pytest.fixture
def run(capsys):
    """Run a command; returns its exit status and what it said on stdout and stderr."""

    def _run(*words: object) -> tuple[int, str, str]:
        status = cli.main([str(w) for w in words])
        out, err = capsys.readouterr()
        return status, out, err

    return _run


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_helps_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert re.search(rf"^example: ffb {name}\b", out, re.MULTILINE)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_example_is_a_command_line_that_parses(name):
    words = cli.COMMANDS[name].example.split(" > ")[0].split()
    assert words[0] == "ffb"
    assert cli.parser().parse_args(words[1:]).command == name


def test_the_commands_are_those_we_promise():
    wanted = "demo run reduce aggregate dashboard check import-config schema reducers detnames"
    assert " ".join(cli.COMMANDS) == f"{wanted} replay open audit verify diff recover merge"


def test_help_and_version_need_no_library_that_is_slow_to_import():
    code = (
        "import sys, ffb.cli; ffb.cli.parser().format_help()\n"
        "print(sys.modules.keys() & {'numba', 'pydantic', 'rich', 'zmq', 'h5py', 'bokeh', 'psana'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_reading_a_configuration_imports_no_compiler():
    """Aggregator and page read one, with expressions and reducers, and compile nothing."""
    code = "import sys, ffb.config; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"ffb {ffb.__version__}\n")


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["chekc"], ["check"], ["demo", "--rate", "0"]])
def test_a_wrong_command_line_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: ffb" in capsys.readouterr().err


def test_every_problem_of_a_configuration_is_a_line(run, file):
    file.write_text(SYNTHETIC.replace("rows", "rwos"))
    assert run("check", file, "--set", "batch.shots=0") == (
        2,
        "",
        "ffb: batch.shots: must be greater than or equal to 1, got 0 (in --set batch.shots=0)\n"
        "ffb: reducers.spot.params[0].rwos: unknown key; did you mean 'rows'?\n"
        "ffb: reducers.spot.params[1].rwos: unknown key; did you mean 'rows'?\n",
    )


def test_a_missing_file_is_a_line(run, tmp_path):
    wanted = f"ffb: {tmp_path}/no.toml: cannot read: no such file or directory\n"
    assert run("run", tmp_path / "no.toml") == (2, "", wanted)
    wanted = f"ffb: {tmp_path}/no.xtc2: no such file or folder\n"
    assert run("detnames", tmp_path / "no.xtc2") == (1, "", wanted)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two\nlines"), "two lines"),
        (KeyError("no column 'x'"), "no column 'x'"),
        (FileNotFoundError(2, "No such file", "a/b"), "a/b: no such file"),
        (TimeoutError("nobody came"), "nobody came"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError(), "RuntimeError: no more is known; try --debug"),
    ],
)
def test_an_error_is_one_line_unless_debugging(run, monkeypatch, error, said):
    def fail() -> int:
        raise error

    monkeypatch.setattr(show, "reducers", fail)
    assert run("reducers") == (1, "", f"ffb: {said}\n")
    with pytest.raises(type(error)):
        run("reducers", "--debug")


def test_ctrl_c_has_its_own_exit_status(run, monkeypatch):
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "reducers", interrupted)
    assert run("reducers") == (130, "", "")


def test_output_into_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m ffb.cli schema | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n0\n", "")


# -- what commands are given ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "function", "given"),
    [
        (["run"], "run", {"page": True, "once": False}),
        (["run", "--no-page", "--once"], "run", {"page": False, "once": True}),
        (["reduce"], "reduce", {"producer": "p0", "index": 0, "of": 1, "once": False}),
        (
            ["reduce", "--index", "2", "--of", "4", "--producer", "x", "--once"],
            "reduce",
            {"producer": "x", "index": 2, "of": 4, "once": True},
        ),
        (["aggregate", "--once"], "aggregate", {"once": True}),
        (["dashboard"], "dashboard", {"port": None}),
        (["dashboard", "--port", "0"], "dashboard", {"port": 0}),
    ],
)
def test_a_process_gets_the_configuration_and_its_options(
    run, file, monkeypatch, words, function, given
):
    calls = []
    monkeypatch.setattr(processes, function, lambda config, **kw: calls.append((config, kw)) or 7)
    monkeypatch.setattr("ffb.health.log_to_stderr", lambda level, context: None)
    status, _, _ = run(words[0], file, "--set", "batch.shots=3", *words[1:])
    ((config, options),) = calls
    assert (status, config.batch.shots, options) == (7, 3, given)


def test_replay_gets_the_capture_and_where_to(run, monkeypatch):
    calls = []
    monkeypatch.setattr("ffb.service.replay.play", lambda *given: calls.append(given) or 1234)
    monkeypatch.setattr("ffb.health.log_to_stderr", lambda level, context: None)
    said = run("replay", "c", "--to", "tcp://127.0.0.1:5", "--speed", "10")
    assert said == (0, "1,234 messages sent and committed\n", "")
    assert calls == [("c", "tcp://127.0.0.1:5", 10.0)]


@pytest.mark.parametrize(
    ("words", "function", "given"),
    [
        (["audit", "f"], "ffb.books.audit.audit_command", ("f",)),
        (["merge", "f"], "ffb.writers.consolidate.merge_command", ("f",)),
        (["recover", "f"], "ffb.writers.recover.recover_command", (Path("f"), False)),
        (["recover", "d", "--end"], "ffb.writers.recover.recover_command", (Path("d"), True)),
        (["verify", "f"], "ffb.live.verify.verify_command", ("f", "", None, None)),
        (
            ["verify", "f", "--view", "scan", "--commit", "7", "--snapshot", "s"],
            "ffb.live.verify.verify_command",
            ("f", "scan", 7, "s"),
        ),
    ],
)
def test_a_command_about_files_gets_its_options_and_returns_their_status(
    run, monkeypatch, words, function, given
):
    calls = []
    monkeypatch.setattr(function, lambda *args: calls.append(args) or 1)
    monkeypatch.setattr("ffb.health.log_to_stderr", lambda level, context: None)
    assert run(*words) == (1, "", "")
    assert calls == [given]


def test_an_index_that_is_not_one_of_n_is_refused(run, file):
    wanted = "ffb: --index 4 is not among 0..3 (--of 4)\n"
    assert run("reduce", file, "--index", "4", "--of", "4") == (1, "", wanted)


def test_the_demo_gets_its_options(run, monkeypatch):
    calls = []
    monkeypatch.setattr("ffb.service.demo.main", lambda args: calls.append(args) or 0)
    monkeypatch.setattr("ffb.health.log_to_stderr", lambda level, context: None)
    run("demo")
    run("demo", "--rate", "10", "--seconds", "2", "--no-page", "--out", "d", "--port", "5")
    names = ("rate", "seconds", "no_page", "out", "port")
    assert [tuple(getattr(c, n) for n in names) for c in calls] == [
        (120.0, 30.0, False, None, 0),
        (10.0, 2.0, True, "d", 5),
    ]


# -- what commands say ---------------------------------------------------------------------------


def test_the_schema_is_json_schema_whose_links_all_lead_somewhere(run):
    status, out, err = run("schema")
    schema = json.loads(out)
    links = set(re.findall(r'"#/\$defs/(\w+)"', out))
    assert (status, err, schema["type"]) == (0, "", "object")
    assert links <= schema["$defs"].keys()
    assert "source" in schema["required"]


def test_reducers_lists_every_module_that_declares_one(run):
    declaring = {
        p.stem for p in (ROOT / "reducers").glob("*.py") if "reducer(version=" in p.read_text()
    }
    status, out, _ = run("reducers")
    listed = {line.split()[0] for line in out.splitlines()[1:] if line[0] != " "}
    assert status == 0
    assert declaring
    assert listed == declaring == set(installed())


@pytest.mark.parametrize("name", installed())
def test_a_reducer_is_shown_whole_with_a_table_to_start_from(run, name):
    found = reducer(name, Path())
    status, out, _ = run("reducers", name)
    assert status == 0
    assert "\x1b" not in out
    names = [*found.inputs, *found.outputs, *(found.params._fields if found.params else ())]
    assert all(re.search(rf"^{n}\s", out, re.MULTILINE) for n in names)
    given = examples.example(found)
    assert out.endswith(given)
    config = parse(tomllib.loads(given))
    assert config.reducers[f"my_{name}"].use == name
    given_params = config.reducers[f"my_{name}"].params_for(1)
    assert found.params is None or parameters(found.params, given_params)


def test_a_unit_that_is_the_inputs_says_so(run):
    _, out, _ = run("reducers", "roi")
    assert re.search(r"^sum +float64 +- +the input's +sum of the valid pixels", out, re.MULTILINE)


def test_an_input_that_is_a_list_of_times_is_called_that(run):
    assert re.search(r"^mcp +a time list *$", run("reducers", "delay_line")[1], re.MULTILINE)
    assert re.search(r"^delay_line +5 time lists ", run("reducers")[1], re.MULTILINE)


def test_an_unknown_reducer_is_told_with_the_nearest(run):
    assert run("reducers", "rio") == (1, "", "ffb: no reducer 'rio'; did you mean 'roi'?\n")


def test_check_prints_the_columns_of_a_run(run, file):
    idle = ("--set", "inputs.idle.detector=area", "--set", "inputs.idle.field=raw")
    status, out, err = run("check", file, "--run", "7", *idle)
    assert (status, err) == (0, "")
    assert re.search(r"^tstx00001 run 7$", out, re.MULTILINE)
    assert re.search(r"^timestamp +uint64 +- +1 ", out, re.MULTILINE)
    assert re.search(r"^energy +float64 +- +mJ ", out, re.MULTILINE)
    assert re.search(r"^spot/sum +float64 +- +keV +sum of the valid pixels", out, re.MULTILINE)
    assert [line for line in out.splitlines() if line.startswith("note: inputs.")] == [
        "note: inputs.idle: nothing takes it; record = true makes it a column"
    ]
    assert f"{file}: nothing wrong; read, compiled and dry run in " in out


def test_check_finds_what_only_the_run_can_tell(run, file):
    status, out, err = run("check", file, "--run", "42")
    assert (status, out) == (2, "")
    assert err == (
        "ffb: reducers.spot.params.cols: [20, 200] is off the detector; area has cols 0..128\n"
    )


def test_check_of_a_run_without_parameters(run, file):
    assert run("check", file, "--run", "0") == (
        2,
        "",
        'ffb: reducers.spot.params: nothing is given for run 0; given are runs "1-41", "42-"\n',
    )


def test_check_warns_where_no_file_could_be_written(run, file, tmp_path):
    (tmp_path / "taken").touch()
    where = ("--set", f"writer.directory={tmp_path}/taken/out")
    said = f"warning: {tmp_path}/taken/out: cannot be written, {tmp_path}/taken is no folder: "
    status, out, _ = run("check", file, *where)
    assert (status, out.count(said)) == (0, 1)
    assert "nothing wrong, 1 warnings" in out
    text = 'source={kind="psana", exp="mfxx49820", shmem="nobody"}'
    assert said in run("check", file, *where, "--set", text)[1]
    _, out, _ = run("check", file, "--set", "writer.reserve_gb=1e9")
    assert "are kept free: make room, or set writer.reserve_gb lower" in out


def test_check_leaves_shared_memory_alone(run, file):
    text = 'source={kind="psana", exp="mfxx49820", shmem="nobody"}'
    status, out, err = run("check", file, "--set", text)
    assert (status, err) == (0, "")
    assert out == (
        f"{file}: nothing wrong so far\n"
        "not checked: detectors, constants and shapes, because shared memory is left alone;"
        " try --run-file or --attach\n"
    )


@pytest.mark.psana
def test_check_and_detnames_on_a_recorded_run(run, run_file, run_spec, tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text(
        '[source]\nkind = "psana"\nexp = "mfxx49820"\nshmem = "x"\n'
        '[inputs]\ne = { detector = "gasdet", field = "f11ENRC", record = true }\n'
        'f = { detector = "gasdte", field = "f11ENRC", record = true }\n'
        'w = { detector = "w8", field = "raw_0" }\n'
        '[reducers.i0]\nuse = "waveform_integral"\ninputs = "w"\n'
        'params = [{ runs = "42-", gate = [20, 90], dt = 1.0 }]\n'
    )
    status, out, err = run("check", file, "--run-file", run_file, "--run", "99")
    assert (status, out) == (2, "")
    assert err == "ffb: inputs: input f: no detector 'gasdte' in this run; nearest is 'gasdet'\n"
    file.write_text(file.read_text().replace("gasdte", "gasdet"))
    status, out, err = run("check", file, "--run-file", run_file, "--run", "99")
    assert (status, err) == (0, "")
    assert f"{run_spec.exp} run 99" in out
    assert "warning" not in out
    file.write_text(file.read_text().replace("mfxx49820", "mfxx49821"))
    out = run("check", file, "--run-file", run_file, "--run", "99")[1]
    assert "warning: source.exp: 'mfxx49821', but this run is of 'mfxx49820'" in out
    status, out, err = run("detnames", run_file)
    assert (status, err) == (0, "")
    assert re.search(r"^gasdet +raw\.f11ENRC ", out, re.MULTILINE)
    assert f"{run_spec.exp} run {run_spec.run}" in out
