"""The house stands as DESIGN says: links, imports one way, modules one can read."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ffb", "reducers", "writers", "dashboards", "tests", "deploy")
LINKED = ("reducers", "writers", "dashboards")

#: A library and the only places that may import it.
BOUNDARIES = {
    "psana": ("ffb/sources/",),
    "zmq": ("ffb/sockets.py", "ffb/link.py", "ffb/transport.py"),
    "h5py": ("writers/", "ffb/parts.py"),
    "hdf5plugin": ("writers/", "ffb/parts.py"),
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
        "checksum",
        "codec",
        "batch",
        "sink",
        "health",
        "runs",
        "layers",
        "address",
        "ranks",
        "sites",
    },
    {
        "reduce",
        "endpoints",
        "untrusted",
        "arrays",
        "contents",
        "lists",
        "losses",
        "align",
        "exposures",
        "moments",
        "ordered",
        "sums",
        "sum_piece",
    },
    {
        "settings",
        "calibration_settings",
        "detector_settings",
        "conditions",
        "integrating_settings",
        "compile",
        "wire",
        "header",
        "uncalibrated",
        "sockets",
        "parts",
        "places",
        "sum_settings",
        "sum_kernels",
        "sum_log",
        "sum_datasets",
        "frame_sums",
    },
    {
        "light",
        "recorded",
        "problems",
        "expression",
        "partners",
        "integrated",
        "derive",
        "combine",
        "window",
        "fuse",
        "summing",
        "accumulate",
        "shed",
        "unseen",
        "epochs",
        "interleave",
        "order",
        "steps",
        "ring",
        "ringfile",
        "snapshots",
    },
    {"account"},
    {"resolve", "wiring", "config", "guard", "ledger", "merge", "link", "transport", "segments"},
    {
        "stages",
        "bind",
        "sum_binding",
        "calibrated",
        "defaults",
        "columns",
        "labelled",
        "terminal",
        "cuts",
        "frame",
        "shots",
    },
    {
        "plan",
        "runstate",
        "aggregate",
        "live",
        "reader",
        "outbox",
        "beside",
        "refill",
        "recompute",
        "shown",
        "report",
        "foreign",
        "sides",
        "blocks",
        "compare",
        "opening",
    },
    {"ffb", "evidence", "recount", "audit", "verify", "heir", "orphans", "produce", "serve"},
    {"reducers", "writers", "dashboards", "sources", "testing"},
    {"migrate"},
    {
        "supervise",
        "merging",
        "table",
        "watch",
        "check",
        "cost",
        "show",
        "replay",
        "diff",
        "meeting",
        "room",
    },
    {"processes", "roll"},
    {"demo", "afterwards"},
    {"command", "cli", "cli_files"},
)


def sources() -> list[Path]:
    found = [p for top in ("ffb", *LINKED) for p in (ROOT / top).rglob("*.py")]
    return sorted({p.resolve() for p in found})


def name_of(path: Path) -> str:
    """Layer name of a module: its first part below ``ffb``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "ffb" else parts
    return "ffb" if parts == ("__init__",) else parts[0]


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
                f"{node.module}.{a.name}" if node.module == "ffb" else node.module
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
    assert mine in level, f"say in LAYERS where {mine} belongs"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "ffb" and rest:
            theirs = rest.split(".")[0]
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
