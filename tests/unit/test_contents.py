"""Columns of a run over its epochs, and the tables beside them."""

from ffb.reading import contents
from ffb.schema import Column, Schema

A, B = Column("r/a", "<f8", unit="keV"), Column("r/b", "<i4")
WIDE, OTHER = A._replace(shape=(3,), dims=("x",)), A._replace(dtype="<f4")


def shown(*schemas: tuple[Column, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = contents.union({i: Schema(s) for i, s in enumerate(schemas)})
    assert all(name == s.column.name for name, s in found.items())
    return {name: (s.source, s.epochs) for name, s in found.items()}


def test_one_epoch_shows_its_columns_as_they_are():
    found = contents.union({0: Schema((A, B))})
    assert [s.column for s in found.values()] == [A, B]
    assert shown((A, B)) == {"r/a": ("r/a", (0,)), "r/b": ("r/b", (0,))}


def test_a_column_that_comes_and_goes_stays_one():
    assert shown((B,), (A, B), (B,)) == {"r/b": ("r/b", (0, 1, 2)), "r/a": ("r/a", (1,))}


def test_a_changed_shape_leaves_the_plain_name_to_the_newest():
    assert shown((A,), (WIDE, B)) == {
        "r/a": ("r/a", (1,)),
        "r/b": ("r/b", (1,)),
        "r/a_e0": ("r/a", (0,)),
    }
    found = contents.union({0: Schema((A,)), 4: Schema((WIDE,)), 7: Schema((OTHER,))})
    assert list(found) == ["r/a", "r/a_e4", "r/a_e0"]
    assert found["r/a_e4"].column.shape == (3,)
    assert found["r/a"].column == OTHER


def test_a_form_that_returns_is_one_column():
    assert shown((A,), (WIDE,), (A,)) == {"r/a": ("r/a", (0, 2)), "r/a_e1": ("r/a", (1,))}


def test_a_new_unit_or_doc_is_no_other_column():
    found = contents.union({0: Schema((A,)), 1: Schema((A._replace(unit="ADU"),))})
    assert found["r/a"].column.unit == "ADU"
    assert found["r/a"].epochs == (0, 1)


def test_a_name_that_is_taken_is_left_alone():
    taken = Column("r/a_e0", "<i8")
    assert shown((A, taken), (WIDE, taken)) == {
        "r/a": ("r/a", (1,)),
        "r/a_e0": ("r/a_e0", (0, 1)),
        "r/a_e0_e0": ("r/a", (0,)),
    }
