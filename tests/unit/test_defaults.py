"""Default detectors: what a hutch's file lists becomes columns, and what is absent a warning."""

import numpy as np
import pytest

from ffb.config import ConfigError, load, parse
from ffb.configuration import layers
from ffb.configuration.detector_settings import kinds
from ffb.configuration.expression import Code, Kind, anything, translate
from ffb.plan import Plan
from ffb.shot import Idle
from ffb.sources.dgram_run import DgramRun
from tests.unit.dgrams import data, dgram, names
from tests.unit.test_dgram_run import stream

HUTCHES = ("cxi", "mec", "mfx", "rix", "tmo", "txi", "ued", "xcs", "xpp")

TIME = {"pulseId": ("u8", 0), "timeStamp": ("u8", 0), "ebeamDestn": ("u1", 0)}
TIME |= {"sequenceValues": ("u2", 1), "inhibitCounts": ("u4", 1)}
MONITOR = {"TypeId": ("u4", 0), "energy": ("f8", 0), "variance": ("f8", 0), "count": ("i4", 0)}
MONITOR |= {"_hidden": ("f4", 0), "label": ("str", 1)}
TOOL = {"ampl": ("f8", 0), "fltpos": ("f8", 0), "image": ("u2", 2)}
AI = {"ch03": ("f8", 0), "samples": ("f4", 1)}

CONFIG = dgram(
    2, 1, names(1, "timing", "raw", TIME, dettype="ts"), names(2, "gmd", "raw", MONITOR),
    names(3, "opal", "ttfex", TOOL), names(4, "ai", "raw", AI), names(5, "xgmd", "raw", MONITOR),
)  # fmt: skip
BEGIN = dgram(4, 2)


def timing(destination=4, codes=(40,)):
    words = np.zeros(18, np.uint16)
    for c in codes:
        words[c >> 4] |= np.uint16(1 << (c & 15))
    values = {"pulseId": 1 << 63 | 77, "timeStamp": 5, "ebeamDestn": destination}
    return data(1, TIME, values | {"sequenceValues": words, "inhibitCounts": np.arange(8)})


def monitor(block, energy, damage=0):
    values = {"TypeId": 1, "energy": energy, "variance": 2 * energy, "count": -3, "_hidden": 0}
    return data(block, MONITOR, values | {"label": "x"}, damage)


def tool(ampl):
    return data(3, TOOL, {"ampl": ampl, "fltpos": 0.0, "image": np.zeros((2, 2))})


def ai(value):
    return data(4, AI, {"ch03": value, "samples": [value, 2 * value]})


def shots(*of):
    return [dgram(12, 10 + t, *blocks) for t, blocks in enumerate(of)]


def rows_of(config, *dgrams):
    """The plan of a run, and the columns of its shots."""
    config = {"source": {"kind": "synthetic"}, "batch": {"shots": max(len(dgrams), 1)}, **config}
    run = DgramRun([CONFIG], [BEGIN], stream(dgrams))
    plan = Plan.make(parse(config), run)
    for item in run:
        if not isinstance(item, Idle):
            plan.take(item, 0)
    batch = plan.close()
    return plan, {} if batch is None else batch.columns


@pytest.mark.parametrize("hutch", HUTCHES)
def test_every_hutch_has_a_file_of_known_detectors(tmp_path, hutch):
    """D1, P8: each of nine can be used as it is; groups, the keys of a table, are there once."""
    path = tmp_path / "exp.toml"
    path.write_text(f'layer = "{hutch}"\nsource = {{ kind = "synthetic" }}\n')
    config = load(path)
    assert config.hutch == hutch
    assert config.damage
    assert config.detectors["timing"].kind == "timing"
    for group, detector in config.detectors.items():
        for name, c in detector.described().computed.items():
            assert translate(c.expr, anything, Kind.NUMBER, Code())[1] == [], (group, name)
            assert c.doc, (group, name)
    assert all(v.doc for v in config.epics.values())


def test_no_hutch_is_left_out():
    assert sorted(p.stem for p in layers.HUTCHES.glob("*.toml")) == [*HUTCHES]


def test_the_two_time_tools_of_rix_have_groups_of_their_own(tmp_path):
    path = tmp_path / "exp.toml"
    path.write_text('layer = "rix"\nsource = { kind = "synthetic" }\n')
    tools = {g: d.detector for g, d in load(path).detectors.items() if d.kind == "timetool"}
    assert tools == {"tt": "c_atmopal", "tt_piranha": "c_piranha"}


def test_every_field_of_every_kind_is_described():
    for name, kind in kinds().items():
        assert kind.doc, name
        for field, described in kind.fields.items():
            assert described.unit, (name, field)
            assert described.doc, (name, field)


def test_fields_of_a_detector_have_units_and_those_not_described_are_recorded_too():
    config = {"detectors": {"gmd": {"kind": "gmd"}}}
    plan, rows = rows_of(config, *shots([monitor(2, 1.5)], [monitor(2, 2.5)]))
    mine = {n: c for n, c in plan.schema.by_name.items() if n.startswith("gmd/")}
    text = ["gmd/label", "gmd/label_valid", "gmd/label_len", "gmd/label_len_valid"]
    assert [*mine] == ["gmd/energy", "gmd/variance", "gmd/count", "gmd/count_valid", *text]
    assert (mine["gmd/energy"].unit, mine["gmd/energy"].doc) == ("mJ", "energy of the x-ray pulse")
    # D5: a name that holds "var" is a name like any other
    assert (mine["gmd/variance"].unit, mine["gmd/variance"].shape) == ("1", ())
    assert mine["gmd/variance"].doc == "variance of gmd, which its kind does not describe"
    assert rows["gmd/energy"].tolist() == [1.5, 2.5]
    assert rows["gmd/variance"].tolist() == [3.0, 5.0]
    assert rows["gmd/count"].tolist() == [-3, -3]
    assert rows["gmd/label"].tolist() == [b"x", b"x"]
    assert plan.warnings == []


def test_an_absent_detector_is_warned_of_with_the_nearest_name_and_its_damage_says_missing():
    """D3, D4: nothing is silent, and what is wholly missing is not good."""
    config = {"damage": True, "detectors": {"xgmb": {"kind": "gmd"}, "opal": {"kind": "wave8"}}}
    config["detectors"]["Sb2BmMon"] = {"kind": "bmmon"}
    plan, rows = rows_of(config, *shots([monitor(5, 1.0)], [monitor(5, 1.0)]))
    assert plan.warnings == [
        "detectors.xgmb: no detector 'xgmb' in this run; did you mean 'xgmd'?",
        "detectors.opal: opal has no fex in this run; it has ttfex",
        "detectors.Sb2BmMon: no detector 'Sb2BmMon' in this run",
    ]
    assert plan.notes[:3] == plan.warnings
    assert not [n for n in rows if n.startswith(("xgmb/", "opal/"))]
    for name in ("xgmb", "opal"):
        assert rows[f"damage/{name}"].tolist() == [0, 0]
        assert rows[f"damage/{name}_state"].tolist() == [0, 0]


def test_missing_damaged_and_good_are_three_states():
    config = {
        "damage": True,
        "detectors": {"gmd": {"kind": "gmd"}},
        "inputs": {"edge": {"detector": "opal", "field": "ttfex.fltpos", "record": True}},
    }
    marks = (0, 1 << 0, 1 << 4, 1 << 11, 1 << 12)  # the last is a bit of the detector's own
    of = [[monitor(2, 1.0, damage=m), tool(1.0)] for m in marks]
    _, rows = rows_of(config, *shots(*of, [tool(1.0)], [monitor(2, 3.0)]))
    assert rows["damage/gmd_state"].tolist() == [2, 1, 1, 1, 2, 0, 2]
    assert rows["damage/gmd"].tolist() == [1, 0, 0, 0, 1, 0, 1]
    assert rows["damage/opal_state"].tolist() == [2] * 6 + [0]
    assert rows["gmd/energy"][3] == 1.0, "damaged data are kept, as psana keeps them"


def test_what_was_missing_at_first_is_never_zero():
    """W1, and 2.3 of the study: NaN for floats, a flag beside integers."""
    config = {"detectors": {"gmd": {"kind": "gmd"}}}
    of = [[timing()] for _ in range(100)] + [[timing(), monitor(2, 1.0 + k)] for k in range(20)]
    _, rows = rows_of(config, *shots(*of))
    assert np.isnan(rows["gmd/energy"][:100]).all()
    assert not rows["gmd/count_valid"][:100].any()
    assert rows["gmd/energy"][100:].tolist() == [1.0 + k for k in range(20)]
    assert rows["gmd/count_valid"][100:].all()


def test_an_experiment_takes_away_adds_renames_and_computes():
    config = {
        "detectors": {
            "gmd": {"kind": "gmd", "record": False},
            "beam": {
                "detector": "xgmd",
                "kind": "gmd",
                "fields": {
                    "variance": {"name": "spread", "unit": "mJ2", "doc": "of it"},
                    "count": {"record": False},
                    "label": {"record": False},
                },
            },
            "ai": {
                "kind": "analog",
                "computed": {
                    "diode": {"expr": "self.ch03 * 2.5 - 0.1", "unit": "V", "doc": "a diode"},
                    "second": {"expr": "self.samples[1]", "unit": "V"},
                    "none": {"expr": "self.ch04", "unit": "V"},
                },
            },
        }
    }
    of = [[ai(0.5 * k), monitor(5, 1.0), monitor(2, 2.0)] for k in range(8)]
    plan, rows = rows_of(config, *shots(*of))
    mine = [n for n in rows if n.split("/")[0] in ("gmd", "beam", "ai", "xgmd")]
    assert mine == ["beam/energy", "beam/spread", "ai/ch03", "ai/samples", "ai/diode", "ai/second"]
    by_name = plan.schema.by_name
    assert (by_name["beam/spread"].unit, by_name["beam/spread"].doc) == ("mJ2", "of it")
    assert (by_name["ai/ch03"].unit, by_name["ai/ch03"].doc) == ("V", "input ch03")
    assert rows["ai/diode"].tolist() == [0.5 * k * 2.5 - 0.1 for k in range(8)]
    assert rows["ai/second"].tolist() == [1.0 * k for k in range(8)]
    assert [w for w in plan.warnings if "ai" in w] == [
        "ai/none is not computed: no column ai.ch04; did you mean 'ai.ch03'?"
    ]


def test_an_input_of_the_same_name_is_the_experiments():
    config = {
        "detectors": {"gmd": {"kind": "gmd"}},
        "inputs": {
            "gmd/energy": {"detector": "xgmd", "field": "energy", "unit": "uJ", "record": True}
        },
    }
    plan, rows = rows_of(config, *shots([monitor(2, 1.0), monitor(5, 7.0)]))
    assert rows["gmd/energy"].tolist() == [7.0]
    assert plan.schema.by_name["gmd/energy"].unit == "uJ"


def test_default_columns_give_way_to_those_of_the_experiment():
    """Whatever a hutch comes to list, the file of an experiment goes on to work."""
    config = {
        "detectors": {
            "ai": {"computed": {"diode": {"expr": "self.ch03", "unit": "V"}}},
            "gmd": {"kind": "gmd"},
            "xgmd": {"kind": "gmd"},
        },
        "inputs": {
            "gmd": {"detector": "gmd", "field": "energy", "record": True},
            "ai/diode": {"detector": "xgmd", "field": "energy", "record": True},
            "xgmd/label/x": {"detector": "xgmd", "field": "count", "record": True},
        },
        "derived": {"ai/ch03": {"expr": "gmd + 1", "unit": "mJ"}},
    }
    of = [[ai(0.5), monitor(2, 1.0), monitor(5, 3.0)]] * 8
    plan, rows = rows_of(config, *shots(*of))
    assert rows["gmd"].tolist() == [1.0] * 8
    assert rows["ai/diode"].tolist() == [3.0] * 8
    assert rows["ai/ch03"].tolist() == [2.0] * 8
    assert rows["xgmd/energy"].tolist() == [3.0] * 8
    assert plan.warnings == [
        *(f"gmd/{n} is not recorded: the experiment has a column gmd"
          for n in ("energy", "variance", "count", "label")),
        "xgmd/label is not recorded: the experiment has a column xgmd/label/x",
    ]  # fmt: skip


def test_the_timing_system_has_the_names_and_values_of_psana():
    _, rows = rows_of(
        {"detectors": {"timing": {"kind": "timing"}}},
        *shots([timing(3, (0, 40, 287))], [], [timing()]),
    )
    mine = [n for n in rows if n.startswith("timing/") and not n.endswith("_valid")]
    expected = ["timestamp", "destination", "eventcodes", "inhibitCounts"]
    assert mine == [f"timing/{n}" for n in expected]
    assert rows["pulse_id"].tolist() == [77, 0, 77], "without the bit that tells who made it"
    assert rows["timing/destination"].tolist() == [3, 0, 4]
    codes = rows["timing/eventcodes"]
    assert codes.shape == (3, 288)
    assert [np.flatnonzero(c).tolist() for c in codes] == [[0, 40, 287], [], [40]]
    for name in expected:
        assert rows[f"timing/{name}_valid"].tolist() == [True, False, True]


def test_light_is_told_by_where_the_beam_goes():
    config = {
        "detectors": {"timing": {"kind": "timing"}},
        "light": {"xray": {"on": "timing.destination == 4"}, "laser": {"off": [273, 274]}},
    }
    of = [timing(4, (273,))], [timing(3, (274,))], [], [timing(4)]
    plan, rows = rows_of(config, *shots(*of))
    assert rows["lightStatus/xray"].tolist() == [1, 0, -1, 1]
    assert rows["lightStatus/xray_valid"].tolist() == [True, True, False, True]
    # D2: any of several codes takes the light away
    assert rows["lightStatus/laser"].tolist() == [0, 0, -1, 1]
    assert rows["lightStatus/laser_valid"].tolist() == [True, True, False, True]
    assert plan.warnings == []


def test_light_by_an_element_of_a_detector_and_codes_together():
    config = {
        "detectors": {
            "ai": {"fields": {"samples": {"shape": [2]}}},
            "timing": {"kind": "timing"},
        },
        "light": {
            "laser": {"on": "ai.samples[1] > 1 and code(40)", "off": "not code(40)"},
            "xray": {"on": "ai.samples[2] > 1"},
        },
    }
    both = [[timing(), ai(v)] for v in (0.25, 0.75, 0.25, 0.75, 0.75, 0.75)]
    of = [*both, [timing()], [ai(0.75)], [timing(codes=()), ai(0.75)]]
    plan, rows = rows_of(config, *shots(*of))
    assert rows["lightStatus/laser"].tolist() == [-1, 1, -1, 1, 1, 1, -1, -1, 0]
    assert rows["lightStatus/xray"].tolist() == [-1] * 9
    assert plan.warnings == [
        "light.xray: ai.samples has the shape (2,); [2] is not in it, so that the light is unknown"
    ]


def test_light_by_what_the_run_does_not_have_is_unknown_and_said():
    config = {
        "detectors": {"timing": {"kind": "timing"}, "diode": {}},
        "light": {"laser": {"off": "diode.value > 1"}},
    }
    plan, rows = rows_of(config, *shots([timing()]))
    assert rows["lightStatus/laser"].tolist() == [-1]
    assert "light.laser: diode.value is not in this run, so that the light is unknown" in plan.notes


def test_failed_fits_of_the_time_tool_are_missing_in_what_is_computed():
    """D6: no edge, no correction; not zero."""
    config = {
        "detectors": {"tt": {"detector": "opal", "kind": "timetool"}},
        "derived": {
            "tt/ttCorr": {
                "expr": "where(tt.ampl > 0, polyval(tt.fltpos, [1, 2]), nan)",
                "unit": "ps",
            }
        },
    }
    _, rows = rows_of(config, *shots([tool(0.5)], [tool(0.0)], [timing()]))
    assert rows["tt/ttCorr"].tolist()[0] == 1.0
    assert np.isnan(rows["tt/ttCorr"][1:]).all()


def test_what_is_wrong_with_a_list_of_detectors_is_told_at_once():
    wrong = {
        "gmd": {"kind": "gdm"},
        "a b": {},
        "tt": {"kinds": "timetool"},
        "ai": {"fields": {"x": {"units": "V"}}, "computed": {"y": {"expr": "1 +", "unit": "V"}}},
    }
    with pytest.raises(ConfigError) as e:
        parse(
            {
                "source": {"kind": "synthetic"},
                "detectors": wrong,
                "epics": {"lxt": {"pvs": "x"}},
                "light": {"xray": {"on": "gmb.energy > 1"}},
            }
        )
    said = "\n".join(e.value.problems)
    assert "detectors.gmd.kind: no kind 'gdm'; did you mean 'gmd'?" in said
    assert "detectors.tt.kinds: unknown key; did you mean 'kind'?" in said
    assert "detectors.ai.fields.x.units: unknown key; did you mean 'unit'?" in said
    assert "epics.lxt.pvs: unknown key; did you mean 'pv'?" in said
    assert 'detectors."a b": expected letters, digits and _, a letter first' in said
    assert "detectors.ai.computed.y.expr: cannot be read" in said
    assert "light.xray.on: a light is told from event codes and inputs, and gmb.energy is" in said


def test_what_is_no_array_of_words_is_not_unpacked():
    inputs = {
        "a": {"detector": "ai", "field": "samples", "record": True, "unpack": True},
        "b": {"detector": "gmd", "field": "count", "record": True, "unpack": True},
    }
    with pytest.raises(ConfigError) as e:
        rows_of({"inputs": inputs}, *shots(*[[monitor(2, 1.0), ai(1.0)]] * 8))
    why = "only arrays of whole numbers are unpacked"
    assert e.value.problems == (f"inputs.a.record: {why}", f"inputs.b.record: {why}")


def test_arrays_that_only_some_producers_would_learn_are_left_out():
    """Else two producers would have columns of different kinds, each in turn."""
    config = {"detectors": {"ai": {"kind": "analog"}, "gmd": {"kind": "gmd"}}}
    early = [[ai(1.0)]] * 3 + [[monitor(2, 1.0)]] * 30
    late = [[monitor(2, 1.0)]] * 5 + [[ai(1.0)]] * 30
    plans = [rows_of(config, *shots(*of))[0] for of in (early, late, early[::-1])]
    assert [p.schema.id for p in plans] == [plans[0].schema.id] * 3
    said = [w for p in plans for w in p.warnings]
    assert said[0] == (
        "detectors.ai: ai/samples is not recorded: ai.raw.samples was in 3 of the first 8 shots,"
        " too few to learn its shape; state shape = [...]"
    )
    always, _ = rows_of(config, *shots(*[[ai(1.0)]] * 33))
    assert always.schema.by_name["ai/samples"].shape == (2,)
    told = {"detectors": {"ai": {"fields": {"samples": {"shape": [2], "unit": "V"}}}}}
    plan, rows = rows_of(told, *shots(*late))
    assert np.isnan(rows["ai/samples"][:5]).all()
    assert rows["ai/samples"][5:].tolist() == [[1.0, 2.0]] * 30
    assert plan.warnings == []


def test_arrays_of_a_detector_that_drops_shots_are_learnt_by_all_producers():
    config = {"detectors": {"ai": {"kind": "analog"}, "gmd": {"kind": "gmd"}}}
    third = [[monitor(2, 1.0)] if i % 3 == 0 else [monitor(2, 1.0), ai(1.0)] for i in range(30)]
    plans = [rows_of(config, *shots(*third[k:]))[0] for k in range(3)]
    assert [p.schema.id for p in plans] == [plans[0].schema.id] * 3
    assert "ai/samples" in plans[0].schema.by_name
