"""The house stands as DESIGN says: links, imports one way, modules one can read."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ffb", "reducers", "writers", "dashboards", "tests", "deploy")
LINKED = ("reducers", "writers", "dashboards")

#: A library and the only places that may import it.
BOUNDARIES = {
    "psana": ("ffb/sources/",),
    "zmq": ("ffb/messaging/sockets.py", "ffb/messaging/link.py", "ffb/transport.py"),
    "h5py": ("writers/", "ffb/reading/parts.py"),
    "hdf5plugin": ("writers/", "ffb/reading/parts.py"),
    "bokeh": ("dashboards/",),
    "tornado": ("dashboards/",),
}

#: Layers of the engine, lowest first; a module imports only from its own layer or lower ones.
LAYERS = (
    {
        "shot",
        "feature",
        "source",
        "schema",
        "messaging.checksum",
        "messaging.codec",
        "batch",
        "sink",
        "health",
        "configuration.runs",
        "configuration.layers",
        "messaging.address",
        "service.ranks",
        "configuration.sites",
    },
    {
        "reduce",
        "messaging.endpoints",
        "messaging.untrusted",
        "messaging.arrays",
        "reading.contents",
        "reading.lists",
        "books.losses",
        "reading.align",
        "integrating.exposures",
        "live.moments",
        "reading.ordered",
        "sums.words",
        "sums.piece",
    },
    {
        "configuration.settings",
        "configuration.by_run",
        "configuration.calibration_settings",
        "configuration.detector_settings",
        "configuration.conditions",
        "configuration.integrating_settings",
        "loops.compile",
        "wire",
        "messaging.header",
        "loops.uncalibrated",
        "messaging.sockets",
        "reading.parts",
        "loops.places",
        "loops.over",
        "configuration.sum_settings",
        "configuration.photon_settings",
        "sums.kernels",
        "sums.log",
        "sums.datasets",
        "sums.frames",
    },
    {
        "configuration.light",
        "loops.recorded",
        "configuration.problems",
        "configuration.expression",
        "configuration.functions",
        "configuration.syntax",
        "configuration.dialects",
        "integrating.partners",
        "integrating.integrated",
        "configuration.derive",
        "loops.combine",
        "messaging.window",
        "loops.fuse",
        "loops.area",
        "loops.ahead",
        "sums.held",
        "live.accumulate",
        "producing.shed",
        "books.unseen",
        "aggregating.epochs",
        "aggregating.interleave",
        "aggregating.order",
        "aggregating.steps",
        "producing.ring",
        "producing.ringfile",
        "live.snapshots",
    },
    {"books.account"},
    {
        "configuration.resolve",
        "loops.wiring",
        "configuration.across",
        "config",
        "loops.guard",
        "ledger",
        "aggregating.merge",
        "messaging.link",
        "transport",
        "reading.segments",
    },
    {
        "loops.columns",
        "loops.dry",
        "loops.stages",
        "loops.rows",
        "loops.passes",
        "loops.adding",
        "loops.bind",
        "sums.binding",
        "loops.calibrated",
        "configuration.defaults",
        "reading.columns",
        "reading.labelled",
        "service.terminal",
        "reading.cuts",
        "reading.frame",
        "reading.shots",
        "reading.told",
    },
    {
        "origin",
        "plan",
        "aggregating.attendance",
        "aggregating.runstate",
        "aggregate",
        "live.model",
        "reader",
        "sums.outbox",
        "aggregating.beside",
        "live.refill",
        "live.recompute",
        "live.shown",
        "service.report",
        "reading.foreign",
        "reading.sides",
        "reading.blocks",
        "reading.compare",
        "reading.opening",
    },
    {
        "ffb",
        "books.evidence",
        "books.recount",
        "books.audit",
        "live.verify",
        "producing.heir",
        "aggregating.orphans",
        "producing.produce",
        "aggregating.serve",
    },
    {"reducers", "writers", "dashboards", "sources", "testing"},
    {"migrate"},
    {
        "supervise",
        "aggregating.merging",
        "service.table",
        "service.watch",
        "service.check",
        "service.cost",
        "service.examples",
        "service.show",
        "service.replay",
        "reading.diff",
        "service.meeting",
        "service.room",
    },
    {"service.processes", "service.roll"},
    {"service.demo", "service.afterwards"},
    {"command", "cli", "cli_files"},
)


def sources() -> list[Path]:
    found = [p for top in ("ffb", *LINKED) for p in (ROOT / top).rglob("*.py")]
    return sorted({p.resolve() for p in found})


def name_of(path: Path) -> str:
    """Layer name of a module: its path below ``ffb``, or of a package that is one layer."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "ffb" else parts
    return "ffb" if parts == ("__init__",) else layer_of(parts)


def layer_of(parts: Sequence[str]) -> str:
    """The longest beginning of a dotted path that ``LAYERS`` names, or its first part."""
    names = set().union(*LAYERS)
    dotted = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((d for d in dotted if d in names), parts[0])


def imports(path: Path) -> list[str]:
    out: list[str] = []
    tree = ast.parse(path.read_text())
    typing_only = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for n in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            out += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            out += [
                f"{node.module}.{a.name}" if node.module.split(".")[0] == "ffb" else node.module
                for a in node.names
            ]
    return out


@pytest.mark.parametrize("folder", LINKED)
def test_a_package_folder_is_linked_under_the_one_import_name(folder):
    link = ROOT / "ffb" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", LINKED)
def test_a_linked_package_refuses_its_bare_name(folder):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"import this package as 'ffb.{folder}'" in done.stderr


def test_there_are_no_other_folders():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    tops = {t.split("/")[0] for t in tracked if "/" in t}
    assert tops == {*FOLDERS, ".ci"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_library_stays_behind_its_boundary(path):
    where = str(path.relative_to(ROOT))
    for name in imports(path):
        for library, allowed in BOUNDARIES.items():
            if name.split(".")[0] == library:
                assert where.startswith(allowed), f"{where} imports {name}; only {allowed} may"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    mine = name_of(path)
    if path.name == "__init__.py" and mine not in level:
        assert not imports(path), f"{mine}: a package's own file only says what it is for"
        return
    assert mine in level, f"say in LAYERS where {mine} belongs"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "ffb" and rest:
            theirs = layer_of(rest.split("."))
            if theirs in level:
                assert level[theirs] <= level[mine], f"{mine} imports {name}, a layer above it"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_can_be_read_at_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_wheel_holds_every_module_and_nothing_else(tmp_path):
    # A copy, because setuptools keeps what it built last time and would pack deleted modules too.
    here = tmp_path / "tree"
    skip = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, here, symlinks=True, ignore=skip)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(here)], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = set()
    for path in sources():
        where = str(path.relative_to(ROOT))
        wanted.add(where if where.startswith("ffb/") else f"ffb/{where}")
    assert {n for n in held if n.endswith(".py")} == wanted
    hutches = {f"ffb/hutches/{p.name}" for p in (ROOT / "deploy" / "hutches").glob("*.toml")}
    assert {"ffb/py.typed", "ffb/kinds.toml", *hutches} <= held
    assert not {n for n in held if not n.startswith("ffb/")}
