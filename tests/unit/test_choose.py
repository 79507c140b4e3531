"""The source that a configuration or a command line names."""

import pytest

from ffb.config import load, parse
from ffb.sources.choose import source_named, source_of
from ffb.sources.files import FilesSource
from ffb.sources.replay import ReplaySource
from ffb.sources.shmem import ShmemSource
from ffb.sources.synthetic import Synthetic, SyntheticSource
from ffb.writers.capture import CaptureWriter


@pytest.fixture
def chosen(tmp_path):
    """Write a configuration with this source and choose; closes what was chosen."""
    made = []

    def choose(source: str, *share: int):
        path = tmp_path / "exp.toml"
        path.write_text(f"source = {source}")
        made.append(source_of(load(path), *share))
        return made[-1]

    yield choose
    for source in made:
        source.close()


def test_a_synthetic_source_is_as_configured(chosen):
    source = chosen(
        '{ kind = "synthetic", exp = "mfxx1", run = 3, runs = 2, steps = 4, shots = 5, rate = 0,'
        " seed = 6, shape = [1, 8, 9], missing = { timing = 0.5 }, backwards = 0.1,"
        " repeated = 0.2, cut = true }",
        1,
        2,
    )
    assert isinstance(source, SyntheticSource)
    assert source.spec == Synthetic(
        exp="mfxx1", run=3, runs=2, steps=4, shots=5, rate=0.0, seed=6, shape=(1, 8, 9),
        missing={"timing": 0.5}, backwards=0.1, repeated=0.2, cut=True, producer=1, producers=2,
    )  # fmt: skip


def test_the_configured_synthetic_run_carries_no_surprise():
    source = source_of(parse({"source": {"kind": "synthetic"}}))
    assert source.spec == Synthetic(rate=120.0)


def test_files_are_seen_from_the_configuration(chosen, tmp_path):
    source = chosen('{ kind = "files", paths = ["a.xtc2", "/b.xtc2"] }')
    assert isinstance(source, FilesSource)
    assert [str(p) for p in source.paths] == [f"{tmp_path}/a.xtc2", "/b.xtc2"]


@pytest.mark.parametrize(
    ("text", "runs", "growing"),
    [
        ('{ kind = "files", dir = "xtc", exp = "mfxx1", run = 7 }', [7], False),
        ('{ kind = "files", dir = "xtc", exp = "mfxx1" }', [], False),
        ('{ kind = "psana", dir = "xtc", exp = "mfxx1", live = true }', [], True),
        ('{ kind = "psana", dir = "xtc", exp = "mfxx1", live = true, run = 8 }', [8], True),
    ],
)
def test_files_of_an_experiment(chosen, tmp_path, text, runs, growing):
    source = chosen(text)
    assert isinstance(source, FilesSource)
    given = (source.paths, source.folder, source.exp, source.numbers, source.growing)
    assert given == ([], tmp_path / "xtc", "mfxx1", runs, growing)


def test_shared_memory_and_captures(chosen, tmp_path):
    source = chosen('{ kind = "psana", exp = "mfxx1", shmem = "nobody" }')
    assert isinstance(source, ShmemSource)
    assert source.tag == "nobody"
    CaptureWriter(tmp_path / "c").close()
    source = chosen('{ kind = "replay", path = "c" }')
    assert isinstance(source, ReplaySource)
    assert source.path == tmp_path / "c"


def test_a_command_line_names_files_a_folder_or_a_tag(tmp_path):
    for name in ("b.xtc2", "a.xtc2"):
        (tmp_path / name).touch()
    both = [tmp_path / "a.xtc2", tmp_path / "b.xtc2"]
    assert source_named([str(p) for p in both]).paths == both
    assert source_named([str(tmp_path)]).paths == both
    (tmp_path / "mfxx1-r0007-s000-c000.xtc2").touch()
    found = source_named([str(tmp_path)])
    assert (found.paths, found.folder, found.exp) == ([], tmp_path, "mfxx1")
    tagged = source_named(["psana0"])
    assert tagged.tag == "psana0"
    tagged.close()


@pytest.mark.parametrize("names", [["no.xtc2"], ["no/such"], ["psana0", "psana1"]])
def test_what_is_no_file_nor_can_be_a_tag_is_refused(names):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        source_named(names)
