"""Integrating detectors in a configuration: what is wrong is told before beam, by its path."""

import pytest

from ffb import config
from ffb.configuration.integrating_settings import IntegratingConfig
from ffb.integrating.integrated import configured
from ffb.integrating.partners import check, choose, own_name, statistic_name
from ffb.schema import Column
from tests.unit.exposed import CONFIG, PARTNERS, SCHEMA
from tests.unit.plans import PULSE, SPOT, plan, problems

REDUCERS = {"andor/full": PULSE, "spot": SPOT}


def told(columns=SCHEMA.columns, **detectors):
    made = {n: IntegratingConfig(**settings) for n, settings in detectors.items()}
    return [str(p) for p in check(made, columns)]


def test_columns_by_default_and_by_pattern():
    choice = choose("andor", IntegratingConfig(), SCHEMA.columns)
    assert [c.name for c in choice.own] == [
        *(f"andor/full_{k}" for k in ("sum", "npix", "spectrum", "present")),
        *(f"andor/fit_{k}" for k in ("n", "width", "present")),
    ]
    scalars = [n for n in PARTNERS if n != "fim/wave"]
    assert [c.name for c in choice.partners] == [
        c.name for c in SCHEMA.columns if c.name in scalars
    ]
    arrays = choose("andor", IntegratingConfig(partners=("fim/*", "*_valid")), SCHEMA.columns)
    assert [c.name for c in arrays.partners] == ["fim/wave"]
    assert choice.flags["cnt/n"] == "cnt/present"


def test_whole_numbers_of_a_former_epoch_are_no_partners():
    """Nothing says where they are not, and 0 there is no value."""
    more = [Column("k", "<i4"), Column("k_e0", "<i2"), Column("x", "<f8"), Column("x_e0", "<f4")]
    choice = choose("andor", IntegratingConfig(), more)
    assert [c.name for c in choice.partners] == ["k", "x", "x_e0"]


def test_names_are_those_of_smalldata_tools():
    assert statistic_name("det_rix_fim1/wfintegrate", "sum") == "det_rix_fim1_sum_wfintegrate"
    assert statistic_name("lightStatus/laser", "sum") == "lightStatus_sum_laser"
    assert statistic_name("normalised", "mean") == "normalised_mean"
    assert own_name("andor", "andor/full_sum") == "full_sum"
    assert own_name("andor", "spot/sum") == "spot_sum"


def test_a_plan_refuses_what_does_not_fit_with_its_path():
    found = problems(
        REDUCERS,
        integrating={
            "andr": {},
            "andor": {"frames": ["andor/fall_*", "andor/*"]},
            "a/b": {"frames": ["spot/*"]},
        },
    )
    starts = [
        "integrating.andr.frames: no column begins with andr/; name its reducers",
        "integrating.andor.frames[0]: no column matches 'andor/fall_*'; did you mean 'andor/full_",
        "integrating.a/b: a detector's name has no slash",
    ]
    assert len(found) == len(starts)
    for problem, start in zip(found, starts, strict=True):
        assert problem.startswith(start), problem


def test_a_partner_that_the_run_lacks_is_a_warning():
    made = plan(REDUCERS, integrating={"andor": {"partners": ["sput/*", "spot/*", "step"]}})
    first, second = made.warnings
    assert first == (
        "integrating.andor.partners[0]: no column matches 'sput/*'; did you mean 'spot/*'?"
    )
    assert second == (
        "integrating.andor.partners[2]: only columns that cannot be added up match 'step'"
    )


def test_what_cannot_be_told_apart_or_found_is_a_problem():
    clash = [*SCHEMA.columns, Column("andor/gasdet_sum_f11", "<f8")]
    assert told(clash, andor={}) == [
        "integrating.andor: two columns would be written as intg/andor/gasdet_sum_f11; rename one"
    ]
    counter = [*SCHEMA.columns, Column("cam/n", "<i8")]
    assert told(counter, cam={}) == [
        "integrating.cam.frames: none of its columns says in which shots it holds"
    ]
    lists = [*SCHEMA.columns, Column("cam/x", "<f4", (4,), length="cam/n")]
    (only,) = told(lists, cam={"frames": ["cam/x"]})
    assert only == "integrating.cam.frames[0]: only lists and texts match 'cam/x'"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_s": 0.0}, "integrating.andor.max_s: must be greater than 0"),
        ({"length_ms": -1.0}, "integrating.andor.length_ms: must be greater than or equal to 0"),
        ({"partner": ["x"]}, "integrating.andor.partner: unknown key; did you mean 'partners'?"),
        ({"partners": "gasdet/*"}, "integrating.andor.partners: expected a list, got 'gasdet/*'"),
        ({"frames": [""]}, "integrating.andor.frames.0"),
    ],
)
def test_a_file_with_a_mistake_is_refused(settings, problem):
    with pytest.raises(config.ConfigError) as e:
        config.parse({"source": {"kind": "synthetic"}, "integrating": {"andor": settings}})
    (found,) = e.value.problems
    assert found.startswith(problem) or problem.rstrip("0").rstrip(".") in found


def test_the_text_in_a_file_gives_the_settings_back():
    settings = {"andor": {"delay_ms": 1.5, "max_s": 5.0, "across_steps": True}}
    made = config.parse({"source": {"kind": "synthetic"}, "integrating": settings})
    assert configured(made.text) == made.integrating
    assert made.integrating["andor"].timing == (1_500_000, 0, 5_000_000_000, True)
    assert [*configured(CONFIG)] == ["andor", "vls"]
    assert configured("no TOML at all, and none needed") == {}
