"""What is deployed beside the package: the Slurm script and the systemd unit."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ffb import cli, config
from ffb.service import processes
from tests.unit.test_cli import SYNTHETIC

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "slurm/ffb_reduce.sbatch"


@pytest.fixture
def sbatch(tmp_path):
    """Run the script with an ``srun`` that says what it was asked for."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def run(*words):
        command = ["bash", str(SCRIPT), *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


def test_the_slurm_script_hands_on_what_it_is_given(sbatch):
    done = sbatch("mfxx49820", "42", "--config", "a b.toml", "-o", "/out")
    words = done.stdout.splitlines()
    assert done.returncode == 0
    ours = words[words.index("ffb") :]
    assert ours[:5] == ["ffb", "reduce", "--files", "mfxx49820", "42"]
    assert "--kill-on-bad-exit=0" in words
    args = cli.parser().parse_args(ours[1:])
    assert (args.files, args.config, args.out) == (["mfxx49820", "42"], "a b.toml", "/out")


def test_the_slurm_script_says_how_it_is_used(sbatch):
    done = sbatch("mfxx49820")
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def test_the_unit_is_one_and_starts_a_command_there_is(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("NO SYSTEMD-ANALYZE: the unit is not verified")
    unit = tmp_path / "ffb@mfxx49820.service"
    shutil.copy(DEPLOY / "systemd/ffb@.service", unit)
    command = ["systemd-analyze", "verify", "--user", str(unit)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (x for x in unit.read_text().splitlines() if x.startswith("ExecStart="))
    args = cli.parser().parse_args(line.split()[2:])
    assert (args.command, args.file) == ("run", "%h/ffb/%i.toml")


def test_logs_go_where_the_configuration_says_each_start_to_its_own_folder(tmp_path):
    file = tmp_path / "exp.toml"
    file.write_text(SYNTHETIC + '[run]\nlogs = "logs"\n')
    folders = {processes._logs(config.load(file)) for _ in range(2)}
    assert {f.parent for f in folders} == {tmp_path / "logs"}
    assert len(folders) == 2
    assert all(f.name.startswith("tstx00001_") for f in folders)
