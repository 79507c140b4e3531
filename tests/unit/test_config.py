"""What a configuration tells: fields, parameters, files, its own schema."""

from pathlib import Path
from typing import NamedTuple

import pytest

from ffb.config import Config, ConfigError, load, parameters, parse
from ffb.shot import Field
from tests.unit.problems_of import SYNTHETIC

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("examples/*.toml")), ids=lambda p: p.name)
def test_every_example_loads(path):
    assert load(path).exp


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("hutches/*.toml")), ids=lambda p: p.name)
def test_every_hutch_carries_an_experiment(write, path):
    config = load(write(f'layer = "{path.stem}"\n' + SYNTHETIC))
    assert config.hutch == path.stem


def test_fields_without_a_dot_belong_to_raw():
    config = parse(
        {
            "source": {"kind": "synthetic"},
            "inputs": {
                "area": {"detector": "jungfrau", "field": "raw"},
                "tt/fltpos": {"detector": "opal", "field": "ttfex.fltpos"},
                "deep": {"detector": "hsd", "field": "fex.corr.baseline", "shape": [4, 2]},
            },
        }
    )
    assert config.fields == {
        "area": Field("jungfrau", "raw", "raw"),
        "tt/fltpos": Field("opal", "ttfex", "fltpos"),
        "deep": Field("hsd", "fex", "corr.baseline"),
    }
    assert config.shapes == {"deep": (4, 2)}


def test_parameters_by_run_and_by_function(write):
    path = write(
        SYNTHETIC
        + """
        [inputs]
        w = { detector = "d", field = "f" }
        [reducers.a]
        use = "./mine.py:ratio"
        inputs = { wf = "w", i0 = "w" }
        params = [{ runs = "-9", gate = [0, 1] }, { runs = "10-", gate = [2, 3], scale = 2 }]
        [reducers.b]
        use = "./mine.py:ratio"
        inputs = { wf = "w", i0 = "w" }
        params = "./mine.py:of_run"
        """
    )
    a, b = load(path).reducers.values()
    assert a.params_for(9) == {"gate": [0, 1]}
    assert a.params_for(10) == {"gate": [2, 3], "scale": 2}
    assert (a.function, b.function) == ("", "./mine.py:of_run")
    with pytest.raises(TypeError, match="of_run gives these parameters: call it with the run"):
        b.params_for(1)


class Params(NamedTuple):
    gate: tuple[int, int]
    scale: float = 1.0
    only: tuple[float, float] | float | None = None


def test_parameters_become_the_declared_types():
    assert parameters(Params, {"gate": [1, 2], "scale": 3}) == Params((1, 2), 3.0)
    assert isinstance(parameters(Params, {"gate": [1, 2], "scale": 3}).scale, float)
    assert parameters(Params, {"gate": [1, 2], "scale": float("inf")}).scale == float("inf")
    assert parameters(None, {}) is None


@pytest.mark.parametrize(
    ("declared", "values", "wanted"),
    [
        (None, {"a": 1}, ["a: unknown key; there are none"]),
        (Params, {"gate": [True, 2]}, ["gate: expected a list of 2 integers, got [True, 2]"]),
        (
            Params,
            {"gate": [1, 2], "only": "x"},
            ["only: expected a list of 2 numbers or a number, got 'x'"],
        ),
    ],
)
def test_parameters_that_do_not_fit(declared, values, wanted):
    with pytest.raises(ConfigError) as caught:
        parameters(declared, values)
    assert list(caught.value.problems) == wanted


def test_where_the_file_goes(write, tmp_path):
    config = load(write('hutch = "mfx"\n' + SYNTHETIC))
    assert config.file("tstx00001", 7) == tmp_path / "hdf5/smalldata/tstx00001_Run0007.h5"
    config = load(write(SYNTHETIC + '[writer]\nscratch = "/s/{hutch}/{exp}"\nname = "r{run}"\n'))
    assert config.file("xppx1", 12) == Path("/s/xpp/xppx1/hdf5/smalldata/r12")
    assert config.locate("~/x") == Path.home() / "x"


@pytest.mark.parametrize(
    ("site", "folder"),
    [
        ("psffb", "/cds/data/drpsrcf/mfx/mfxx49820/scratch"),
        ("s3df", "/sdf/data/lcls/ds/mfx/mfxx49820"),
        ("s3df-ffb", "/sdf/data/lcls/ds/mfx/mfxx49820"),
        ("laptop", str(Path.home() / "ffb/mfx/mfxx49820")),
    ],
)
def test_a_site_stands_for_its_folder(write, site, folder):
    config = load(write(SYNTHETIC + f'[writer]\nscratch = "{site}"\n'))
    wanted = Path(folder, "hdf5/smalldata/mfxx49820_Run0007.h5")
    assert config.file("mfxx49820", 7) == wanted


def test_every_key_is_described_in_the_json_schema():
    schema = Config.model_json_schema()
    models = {"Config": schema, **schema["$defs"]}
    for name, model in models.items():
        assert model["description"]
        assert model["additionalProperties"] is False, name
        for key, about in model["properties"].items():
            linked = models.get(about.get("$ref", "").rpartition("/")[2], about)
            assert linked.get("description") or key == "kind", f"{name}.{key}"
