"""What psana's SmallData writer gets wrong, right: one test for each of its known defects.

The numbers are those of the study of smalldata_tools; where the matter has a test of its own, the
table names it.

====  ================================================================  =========================
W1    absent in the first shots: NaN or invalid, never 0 for a value    here
W2    absent of any type, bool and unsigned too                         here
W3    another shape: absent; from run to run, epoch to epoch a form     here, ``test_consolidate``
W4    ragged data are not padded, lengths are lengths                   here, ``test_ragged``
W5    a part that is missing is an error                                here, ``test_segments``
W6    rows are in order of time                                         ``test_consolidate``
W7    units, compression, readable while it grows                       here, ``test_layout``
====  ================================================================  =========================
"""

import h5py
import numpy as np
import pytest

from ffb import reader
from ffb.reading.parts import BrokenFileError
from ffb.schema import CORE, Column, Schema
from ffb.shot import Input
from ffb.writers.chain import Rolling
from ffb.writers.master import folder_of
from ffb.writers.small_data import SmallData
from tests.unit.plans import INPUTS, feed, plan, shot
from tests.unit.small_data_truth import INFO, PROVENANCE, books, make_batch

KINDS = ["<f4", "<f8", "<i1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"]


def written(folder, p, shots):
    """The finished file of a plan's shots."""
    for k, s in enumerate(shots):
        p.take(s, k)
    sink = SmallData(folder)
    sink.begin_run(INFO, p.schema, p.provenance())
    batch = p.close()
    sink.append(batch)
    sink.end_run(books(1, batch.n, ended="end of run"))
    return sink.path


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_w1_w2_what_is_absent_first_and_later_is_told_for_every_type(tmp_path, dtype, shape):
    inputs = {**INPUTS, "line": Input("value", dtype, shape)}
    p = plan({}, shots=8, record=("line",), inputs=inputs)
    value = np.ones(shape, dtype)[()]
    there = [False, False, False, True, False, True, True, False]
    path = written(tmp_path, p, [shot(k, line=value if here else None)
                                 for k, here in enumerate(there)])  # fmt: skip
    with h5py.File(path) as file:
        rows = file["line"][:].reshape(8, -1)
        assert file["line"].dtype == dtype
        if np.dtype(dtype).kind == "f":
            assert np.isnan(rows).all(axis=1).tolist() == [not here for here in there]
        else:
            assert file["line_valid"][:].tolist() == there
        assert (rows[there] == 1).all()


def test_w3_a_frame_of_another_shape_is_absent_and_nothing_ends():
    frames = [np.full(n, n, np.float32) for n in (3, 4, 2, 3)]
    p = plan({}, record=("line",))
    columns = feed(p, [shot(k, line=f if len(f) == 3 else None) for k, f in enumerate(frames)])
    assert np.isnan(columns["line"]).all(axis=1).tolist() == [False, True, True, False]


def test_w4_lists_beside_rows_are_not_padded_and_shots_without_them_have_length_0(tmp_path):
    schema = Schema((
        *CORE, Column("d/n", "<i8", reducer="d"),
        Column("d/x", "<f8", (50,), reducer="d", length="d/n"), Column("d/y", "<f8", reducer="d"),
    ))  # fmt: skip
    sink = SmallData(tmp_path)
    sink.begin_run(INFO, schema, PROVENANCE)
    batch = make_batch(0, 12, schema)
    batch.columns["d/n"][:] = [0, 0, 2, 0, 0, 50, 0, 0, 0, 70, 0, 1]
    sink.append(batch)
    sink.end_run(books(1, 12, ended="end of run"))
    with h5py.File(sink.path) as file:
        assert file["d/y"].shape == (12,)
        assert file["d/var_d_len"][:].tolist() == [0, 0, 2, 0, 0, 50, 0, 0, 0, 50, 0, 1]
        assert file["d/var_d/x"].shape == (103,)


def test_w5_a_part_that_is_missing_is_named_and_its_rows_are_no_fill_values(tmp_path):
    schema = Schema((*CORE, Column("x", "<f8")))
    sink = SmallData(tmp_path, rolling=Rolling(segment_rows=1024), merge=None)
    sink.begin_run(INFO, schema, PROVENANCE)
    for k in range(3):
        sink.append(make_batch(1024 * k, 1024, schema))
        sink.commit(books(k + 1, 1024 * (k + 1)))
    sink.end_run(books(4, 3072, ended="end of run"))
    (folder_of(sink.path) / "seg0001.h5").unlink()
    with reader.open(sink.path) as run:
        assert len(run["x"][:1024]) == 1024
        with pytest.raises(BrokenFileError, match=r"seg0001\.h5 is missing: rows 1,024 to 2,047"):
            run["x"][:]
        assert any("seg0001" in name for name, _ in run.damage())


def test_w7_it_is_readable_from_the_first_row_on_and_nothing_is_created_afterwards(tmp_path):
    p = plan({}, record=("line", "mode"), shots=4)
    for k in range(4):
        p.take(shot(k, line=None, mode=None), k)
    sink = SmallData(tmp_path)
    sink.begin_run(INFO, p.schema, p.provenance())
    with reader.open(sink.path) as run:
        before = run.columns
        sink.append(p.close())
        sink.commit(books(1, 4))
        assert run.refresh() == 4
        assert run.columns == before
        assert np.isnan(run["line"][:]).all()
        assert not run["mode_valid"][:].any()
    sink.close()
