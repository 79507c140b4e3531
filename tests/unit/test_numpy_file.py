"""A parameter's file is read, or it is told what is wrong with it."""

import re
from pathlib import Path

import numpy as np
import pytest

from ffb.reducers import svd_basis, waveform_template
from ffb.reducers.numpy_file import read


def test_arrays_are_read_by_their_names(tmp_path):
    np.save(tmp_path / "one.npy", [1, 2])
    np.savez(tmp_path / "two.npz", a=[True], b=[0.5], note="of run 42")
    assert [a.tolist() for a in read(tmp_path / "one.npy", "any")] == [[1, 2]]
    assert [a.tolist() for a in read(tmp_path / "two.npz", "b", "a")] == [[0.5], [True]]


def files(folder: Path):
    """Files of all kinds that hold no numbers, and what is said of them."""
    np.savez(folder / "whole.npz", a=np.arange(99.0))
    np.save(folder / "whole.npy", np.arange(99.0))
    for name, content, text in (
        ("empty.npy", b"", "it is no .npy or .npz file"),
        ("text.npy", b"1.0 2.0 3.0", "cannot be read: it is no .npy or .npz file"),
        ("basis.h5", b"\x89HDF\r\n\x1a\n", "cannot be read: it is no .npy or .npz file"),
        ("half.npz", (folder / "whole.npz").read_bytes()[:500], "cannot be read"),
        ("half.npy", (folder / "whole.npy").read_bytes()[:500], "cannot be read"),
        ("zip.npz", b"PK\x03\x04", "cannot be read"),
    ):
        (folder / name).write_bytes(content)
        yield name, text
    for name, array, text in (
        ("words.npy", np.array(["a", "b"]), "is of <U1; real numbers"),
        ("complex.npy", np.array([1j]), "is of complex128; real numbers"),
        ("objects.npy", np.array([None]), "cannot be read"),
    ):
        np.save(folder / name, array)
        yield name, text
    yield "whole.npz", "holds a; no b"
    yield "nowhere.npy", "No such file"
    yield ".", "directory"


def test_what_holds_no_numbers_is_told_with_its_name(tmp_path):
    for name, text in files(tmp_path):
        with pytest.raises(ValueError, match=text) as e:
            read(tmp_path / name, "b")
        assert str(tmp_path / name) in str(e.value), name


@pytest.mark.parametrize("load", [svd_basis.load, waveform_template.load])
def test_a_damaged_file_of_a_reducer_is_told(load, tmp_path):
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=re.escape("half.npz cannot be read")):
        load(tmp_path / "half.npz")


@pytest.mark.parametrize(
    ("change", "text"),
    [({"start": [1, 2]}, "start is"), ({"start": 3.5}, "start is"), ({"components": []}, "finite")],
)
def test_what_is_no_basis_is_told(change, text, tmp_path):
    np.savez(tmp_path / "b.npz", **{"components": [[1.0]], "values": [1.0], "start": 3} | change)
    with pytest.raises(ValueError, match=text):
        svd_basis.load(tmp_path / "b.npz")
