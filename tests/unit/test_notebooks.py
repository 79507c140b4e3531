"""The notebooks of deploy/examples: their code, on a run of known truth, also while it grows."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffb import config
from ffb.plan import Plan
from ffb.shot import BeginStep
from ffb.sink import Counts
from ffb.sources.synthetic import Synthetic, SyntheticSource
from ffb.writers.small_data import SmallData

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SHOTS, STEPS = 630, 21

#: What IPython gives to a notebook: here it says what is shown, and when.
DISPLAY = """
class Shown:
    def update(self, figure):
        figure.canvas.draw()
        print("shown", run.committed, flush=True)


def display(figure, display_id):
    return Shown()
"""


def cells(name: str) -> list[dict]:
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]


def script(name: str, result: str) -> str:
    """The code of a notebook, which then says a ``result`` as JSON."""
    code = ["".join(c["source"]) for c in cells(name) if c["cell_type"] == "code"]
    return "\n\n".join([DISPLAY, *code, f"import json\nprint(json.dumps({result}))"])


def started(name: str, result: str, file: Path, folder: Path) -> subprocess.Popen[str]:
    more = {"FFB_FILE": str(file), "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(folder)}
    command = [sys.executable, "-c", script(name, result)]
    return subprocess.Popen(command, env=os.environ | more, stdout=subprocess.PIPE, text=True)


class Written:
    """The run of the notebooks' example, a commit at a time."""

    def __init__(self, folder: Path) -> None:
        made = config.load(EXAMPLES / "pump_probe.toml", [f"batch.shots={SHOTS // 3}"])
        spec = Synthetic(shots=SHOTS, steps=STEPS, missing={"timetool": 0.1})
        self._run = next(SyntheticSource(spec).runs())
        self._plan, self.sink = Plan.make(made, self._run), SmallData(folder)
        self.sink.begin_run(self._run.info, self._plan.schema, self._plan.provenance())
        self._items, self.rows = iter(self._run), 0

    def commit(self) -> int:
        """Commit a third of the run; the rows so far."""
        for item in self._items:
            if isinstance(item, BeginStep):
                self._plan.step(item)
                self.sink.step(item.step, item.values, item.docstring)
            elif self._plan.take(item, 1_800_000_000_000_000_000):
                break
        batch = self._plan.close()
        self.rows += batch.n
        self.sink.append(batch)
        self.sink.commit(Counts(self.rows, self.rows, self.rows))
        return self.rows

    def end(self) -> Path:
        self.sink.end_run(Counts(self.rows + 1, self.rows, self.rows, ended="end of run"))
        assert self.sink.path is not None
        return self.sink.path


def rise(delay: np.ndarray) -> np.ndarray:
    """What the laser adds to the signal of the synthetic source, relative to it."""
    return 0.5 / (1 + np.exp(-3 * delay))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_clean(path):
    book = json.loads(path.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["cells"][0]["cell_type"] == "markdown"
    for cell in book["cells"]:
        text = "".join(cell["source"])
        assert max(map(len, text.splitlines())) <= 105
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse(text)


def test_there_are_the_notebooks_we_promise():
    assert [p.stem for p in NOTEBOOKS] == ["follow_live_run", "pump_probe"]


def test_pump_and_probe_finds_what_the_laser_does(tmp_path):
    made = Written(tmp_path)
    while made.commit() < SHOTS:
        pass
    result = "dict(middle=[*middle], change=[*change], error=[*error], before=before, after=after)"
    with started("pump_probe", result, made.end(), tmp_path) as child:
        out, _ = child.communicate()
    assert child.returncode == 0
    said = json.loads(out.splitlines()[-1])
    middle, change, error = (np.array(said[k]) for k in ("middle", "change", "error"))
    expected = rise(middle)
    assert len(middle) == STEPS
    assert np.isfinite(change).sum() >= STEPS - 2
    # Photons are whole, which costs a few per mille beside the statistical error.
    assert np.nanmax(np.abs(change - expected) / np.hypot(error, 0.01)) < 4
    assert abs(said["before"][0] - 0.005) < 0.015
    assert abs(said["after"][0] - 0.49) < 0.02
    assert f"no x-rays  {SHOTS // 10:6}" in out


def test_a_live_run_is_followed_to_its_end(tmp_path):
    made = Written(tmp_path)
    rows = [made.commit()]
    assert made.sink.path is not None
    result = (
        "dict(n={k: [*v[0]] for k, v in sums.items()}, x={k: [*v[1]] for k, v in sums.items()})"
    )
    with started("follow_live_run", result, made.sink.path, tmp_path) as child:
        assert child.stdout is not None
        for more in (made.commit, made.commit):
            assert child.stdout.readline() == f"shown {rows[-1]}\n"
            rows.append(more())
        assert child.stdout.readline() == f"shown {rows[-1]}\n"
        made.end()
        out = child.stdout.read()
    assert child.returncode == 0
    assert rows == [SHOTS // 3, 2 * SHOTS // 3, SHOTS]
    said = json.loads(out.splitlines()[-1])
    on, off = (np.array(said["x"][k]) / said["n"][k] for k in ("on", "off"))
    np.testing.assert_allclose(on / off - 1, rise(np.linspace(-2, 2, STEPS)), atol=0.02)
    assert sum(said["n"]["on"]) + sum(said["n"]["off"]) <= 0.9 * SHOTS
