"""A run whose streams go on in further files is one run."""

import pytest

from ffb.shot import Field
from ffb.sources.files import FilesSource
from tests.contract.readers import take
from tests.psana.encoders import chunked

pytestmark = pytest.mark.psana

ENC = {"enc": Field("enc", "raw", "position")}


def test_a_run_in_chunks_is_one_run(spec, tmp_path):
    chunked(tmp_path, spec)
    [t] = [take(r, ENC) for r in FilesSource(folder=tmp_path, exp=spec.exp).runs()]
    assert [row.pulse_id for row in t.rows] == list(range(20))
    assert [row.values["enc"] for row in t.rows] == list(range(20))
    assert (t.ended, t.notes) == ("end of run", [])


def test_a_chunk_that_appears_later_is_waited_for(spec, tmp_path):
    run = chunked(tmp_path, spec)
    hidden = sorted(p for p in tmp_path.iterdir() if "c000" not in p.name)
    contents = {p: p.read_bytes() for p in hidden}
    for p in hidden:
        p.unlink()

    def wait():
        if contents:
            path, data = contents.popitem()
            path.with_name(path.name + ".inprogress").write_bytes(data)

    source = FilesSource(folder=tmp_path, exp=spec.exp, growing=True, settle=0.0)
    t = take(next(source.runs()), ENC, wait)
    assert [row.values["enc"] for row in t.rows] == list(range(20)), run
    assert (t.ended, t.idles > 2) == ("end of run", True)
    source.close()


def test_a_chunk_that_is_not_there_misses_its_detectors_and_the_run_says_so(spec, tmp_path):
    run = chunked(tmp_path, spec)
    (tmp_path / f"{run}-s001-c001.xtc2").unlink()
    t = take(next(FilesSource(folder=tmp_path, exp=spec.exp).runs()), ENC)
    assert [row.pulse_id for row in t.rows] == list(range(20))
    assert [row.values["enc"] for row in t.rows] == [*range(5), *[None] * 15]
    assert any(f"goes on in {run}-s001-c001.xtc2, which is not there" in n for n in t.notes)
