"""Files laid on each other, overrides, and TOML that reads back equal."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffb.config import load
from ffb.configuration import layers
from tests.unit.problems_of import SYNTHETIC

keys = st.sampled_from("abc")
scalars = st.integers(0, 9) | st.lists(st.integers(0, 3), max_size=2)
tables = st.recursive(
    st.dictionaries(keys, scalars, max_size=3),
    lambda inner: st.dictionaries(keys, scalars | inner, max_size=3),
    max_leaves=8,
)


def leaves(table, at=()):
    for k, v in table.items():
        if isinstance(v, dict):
            yield from leaves(v, (*at, k))
        else:
            yield (*at, k), v


def hidden(path, above) -> bool:
    """Whether ``above`` sets ``path``, or a scalar on the way to it."""
    for step in path:
        if not isinstance(above, dict):
            return True
        if step not in above:
            return False
        above = above[step]
    return True


@given(tables, tables)
def test_a_leaf_survives_where_the_layer_above_says_nothing(below, above):
    wanted = {p: v for p, v in leaves(below) if not hidden(p, above)} | dict(leaves(above))
    assert dict(leaves(layers.merge(below, above))) == wanted


@given(tables)
def test_merging_with_nothing_changes_nothing(table):
    assert layers.merge(table, {}) == layers.merge({}, table) == table


def test_a_table_of_another_kind_replaces_as_a_whole():
    below = {"source": {"kind": "psana", "exp": "mfxx49820", "shmem": "psana0"}}
    assert layers.merge(below, {"source": {"kind": "synthetic"}}) == {
        "source": {"kind": "synthetic"}
    }
    assert layers.merge(below, {"source": {"shmem": "other"}})["source"] == {
        "kind": "psana", "exp": "mfxx49820", "shmem": "other",
    }  # fmt: skip


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
    | st.datetimes() | st.dates(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_reads_back_equal(data):
    assert tomllib.loads(layers.dump(data)) == data


def test_the_hutch_file_is_found_beside_the_experiments_or_by_name(write):
    write("[batch]\nshots = 7\nage_ms = 9\n", "tmo.toml")
    path = write('layer = "tmo"\n[batch]\nage_ms = 10\n' + SYNTHETIC)
    batch = load(path).batch
    assert (batch.shots, batch.age_ms) == (7, 10.0)
    by_path = write('layer = "./tmo.toml"\n' + SYNTHETIC)
    assert load(by_path).batch.shots == 7
    named = load(write('layer = "xpp"\n' + SYNTHETIC))
    assert (named.hutch, named.light.xray.off) == ("xpp", (162,))
    its_own = load(write('layer = "xpp"\n' + SYNTHETIC, "xpp.toml"))
    assert its_own.light == named.light


def test_the_resolved_text_loads_to_an_equal_configuration(write):
    path = write('layer = "mfx"\n' + SYNTHETIC + '[inputs]\n"tt/a" = { detector="d", field="f" }\n')
    config = load(path, ["batch.shots=3", "source.exp=mfxx1"])
    again = load(write(config.text, "again.toml"))
    assert again.model_dump() == config.model_dump()
    assert "layer" not in tomllib.loads(config.text)
    assert config.text.startswith(f"# {layers.HUTCHES / 'mfx.toml'}\n# {path}\n# --set batch")
    assert (config.path, config.overrides) == (path, ("batch.shots=3", "source.exp=mfxx1"))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a.b=3", {"a": {"b": 3}}),
        ("a = [1, 2]", {"a": [1, 2]}),
        ('a="x y"', {"a": "x y"}),
        ("a=mfxx49820", {"a": "mfxx49820"}),
        ("a=../mfx/x.toml", {"a": "../mfx/x.toml"}),
        ("a=true", {"a": True}),
        ("a={ b = 1 }", {"a": {"b": 1}}),
        ('inputs."tt.x".unit=px', {"inputs": {"tt.x": {"unit": "px"}}}),
        ("inputs.tt/x.unit=px", {"inputs": {"tt/x": {"unit": "px"}}}),
    ],
)
def test_an_override_is_toml_or_a_plain_word(text, data):
    assert layers.override(text).data == data
