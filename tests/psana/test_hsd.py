"""High-speed digitizers: every value is psana's own, and what is broken is absent, not a crash."""

import numpy as np
import pytest

from ffb.shot import BeginStep, Field, FrameBlock, Idle
from ffb.sources.digitizer import DT_NS
from ffb.sources.files import FilesSource
from tests.contract.readers import take
from tests.psana import digitized
from tests.psana.digitized import BASELINE, PAD, RANGE, broken, psanas, record, shots, stream, write

pytestmark = pytest.mark.psana

ROOM, SAMPLES = 6, 200
LISTS = {"start": ROOM, "length": ROOM, "samples": SAMPLES}


def fields(version=(3, 0, 0), segments=(0,)):
    names = ["waveforms.{}", "padded.{}", *(f"peaks.{{}}.{n}" for n in LISTS)]
    names += ["fex_status.{}", "baselines.{}"] * (version >= (3, 0, 0))
    return [n.format(s) for s in segments for n in names]


def read(path, names, alg="raw"):
    """Rows of the run in ``path``, lists with their counts."""
    run = next(FilesSource([path]).runs())
    rooms = {n: LISTS[n.rpartition(".")[2]] for n in names if n.startswith("peaks")}
    wish = {n: Field("hsd", alg, n) for n in names}
    return take(run, wish, rooms=rooms)


def agree(got, want, name, length):
    """One value is psana's; a list as far as there is room, and its count in full."""
    if not name.startswith("peaks"):
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    room = LISTS[name.rpartition(".")[2]]
    assert length == len(want), name
    np.testing.assert_array_equal(got[: len(want)], want[:room], err_msg=name)
    assert not got[len(want) :].any(), name


@pytest.mark.parametrize(
    ("version", "channel", "segments"),
    [
        ((3, 0, 0), "chan00", (0,)),
        ((2, 0, 0), "chan03", (0, 3, 11)),
        ((1, 2, 3), "chan01", (0, 2)),
    ],
)
def test_every_value_is_psanas(tmp_path, version, channel, segments):
    rng = np.random.default_rng(version[0])
    made = [
        [shots(rng, channel)[kind] for _ in segments]
        for _ in range(3)
        for kind in shots(rng, channel)
    ]
    made.insert(5, [None, *made[0][1:]])
    path = write(tmp_path / "run.xtc2", made, version=version, channel=channel, segments=segments)
    names = fields(version, segments)
    t = read(path, names, digitized.alg(version))
    assert (t.problems, t.inputs["padded.0"].shape) == ([], (PAD,))
    assert not any("psana decodes" in n for n in t.notes), t.notes
    seen = dict.fromkeys(names, 0)
    for row, want in zip(t.rows, psanas(path), strict=True):
        for name in names:
            got = row.values[name]
            if name in want:
                seen[name] += 1
                agree(got, want[name], name, row.values.get(f"{name}_len"))
            elif name.startswith("peaks") and got is not None:
                assert row.values[f"{name}_len"] == 0, "the digitizer looked and found none"
            else:
                assert got is None, name
    assert min(seen.values()) > 10
    assert not t.rows[5].values.keys() - {n for n, v in t.rows[5].values.items() if v is None}
    pads = {
        float(row.values["padded.0"][-1]) for row in t.rows if row.values["padded.0"] is not None
    }
    assert pads == {BASELINE if version == (3, 0, 0) else sum(RANGE) // 2}


def test_what_is_cut_short_is_absent_and_counted(tmp_path):
    """psana is not asked about it: it would read beyond the bytes, or for ever."""
    rng = np.random.default_rng(1)
    good = shots(rng)["both"]
    made = [[good], *([r] for r in broken(rng).values()), [good]]
    path = write(tmp_path / "run.xtc2", made)
    t = read(path, fields())
    there = [{n for n, v in row.values.items() if v is not None} for row in t.rows]
    assert there[0] == there[-1] == {*t.inputs}
    assert there[1:-1] == [set()] * len(broken(rng))
    assert [row.pulse_id for row in t.rows] == list(range(100, 100 + len(made)))
    said = [n for n in t.notes if "cut short" in n]
    assert len(said) == len(t.inputs)
    assert said[0].startswith(f"input waveforms.0: in {len(broken(rng))} shots not of shape [64]")
    assert not any("psana decodes" in n for n in t.notes), t.notes
    run = next(FilesSource([path]).runs())
    inputs, _ = run.bind({"w": Field("hsd", "raw", "waveforms.0")}, {"w": (64,)})
    block = FrameBlock(inputs, 1)
    words = []
    for item in run:
        if not isinstance(item, BeginStep | Idle):
            item.fill(block, 0)
            words.append(int(block.damage[0, 0]))
    assert words == [0, *[1] * len(broken(rng)), 0], "as the DAQ marks what it cuts short"


def test_a_trace_of_another_length_is_absent(tmp_path):
    rng = np.random.default_rng(2)
    made = [[shots(rng)["both"]] for _ in range(9)] + [[shots(rng, n=60)["both"]]]
    t = read(write(tmp_path / "run.xtc2", made), ["waveforms.0", "peaks.0.start"])
    assert [row.values["waveforms.0"] is None for row in t.rows] == [False] * 9 + [True]
    assert all(row.values["peaks.0.start"] is not None for row in t.rows)


def test_traces_of_any_length_are_a_list(tmp_path):
    rng = np.random.default_rng(3)
    sizes = (8, 64, 0, 13)
    made = [[record(1, stream(0, rng.integers(1, 99, n)))] for n in sizes]
    path = write(tmp_path / "run.xtc2", made)
    wish = {"w": Field("hsd", "raw", "waveforms.0")}
    t = take(next(FilesSource([path]).runs()), wish)
    assert "in another: its length changes" in t.problems[0]
    assert "room = N" in t.problems[0]
    t = take(next(FilesSource([path]).runs()), wish, rooms={"w": 20})
    assert (t.problems, t.inputs["w"].shape, t.inputs["w"].length) == ([], (20,), "w_len")
    assert [row.values["w_len"] for row in t.rows] == [8, 64, None, 13]
    for row, want in zip(t.rows, psanas(path), strict=True):
        if row.values["w"] is None:
            assert not want.get("waveforms.0", np.zeros(0)).size
            continue
        n = int(row.values["w_len"])
        np.testing.assert_array_equal(row.values["w"][:n], want["waveforms.0"][:20])
        assert not row.values["w"][n:].any()


def test_what_is_offered_and_what_is_refused(tmp_path):
    rng = np.random.default_rng(4)
    path = write(
        tmp_path / "run.xtc2", [[shots(rng)["both"]] * 2] * 9, segments=(0, 5), config=False
    )
    run = next(FilesSource([path]).runs())
    offered = {f.name: word for f, word in run.fields.items() if f.detector == "hsd"}
    assert set(offered) == {*fields(segments=(0, 5)), "eventHeader"}
    assert offered["peaks.5.start"] == "int32, rank 1, list, first sample of each peak"
    wrong = {
        "none": ("waveform.5", "nearest is 'raw.waveforms.5'"),
        "segment": ("waveforms.1", "nearest is 'raw.waveforms."),
        "packed": ("chan00", "is packed; its traces and peaks are the fields raw.waveforms.0,"),
        "roomless": ("peaks.5.start", "peaks differs from shot to shot; give it room = N entries"),
        "pad": ("padded.0", "configuration of it lacks user.fex"),
        "roomy": ("baselines.0", "it is not a list"),
        "shape": ("baselines.5", "it has the shape [4], not [5]"),
    }
    wish = {k: Field("hsd", "raw", name) for k, (name, _) in wrong.items()}
    t = take(
        run,
        wish | {"w": Field("hsd", "raw", "waveforms.5")},
        shapes={"shape": (5,)},
        rooms={"roomy": 3},
    )
    said = {p.split(":")[0].split()[-1]: p for p in t.problems}
    assert said.keys() == wrong.keys()
    for name, (_, text) in wrong.items():
        assert text in said[name]
    assert t.inputs["w"].doc == "whole trace of segment 5, channel 0, 0.168269231 ns a sample"
    assert t.rows[0].values["w"].shape == (64,)
    assert not any("psana decodes" in n for n in t.notes), t.notes


@pytest.mark.parametrize("version", [(1, 2, 3), (3, 0, 0)])
def test_the_clock_of_the_digitizer_is_psanas(tmp_path, version):
    made = [[digitized.record(1, stream(0, range(64)))]]
    path = write(tmp_path / "run.xtc2", made, version=version)
    psana = digitized.import_psana("psana")
    run = next(psana.DataSource(files=str(path), skip_calib_load="all", log_level="ERROR").runs())
    raw = getattr(run.Detector("hsd"), digitized.alg(version))
    times = raw.waveforms(next(run.events()))[0]["times"]
    np.testing.assert_allclose(times * 1e9, DT_NS * np.arange(64), rtol=1e-12)


@pytest.mark.parametrize("version", [(2, 1, 0), (4, 0, 0)])
def test_a_version_that_psana_does_not_know_is_refused(tmp_path, version):
    path = write(
        tmp_path / "run.xtc2", [[digitized.record(1, stream(0, range(64)))]] * 3, version=version
    )
    run = next(FilesSource([path]).runs())
    wish = {n: Field("hsd", "raw", n) for n in ("waveforms.0", "waveforms", "chan00")}
    t = take(run, wish)
    said = (
        f"hsd is a digitizer of raw {'.'.join(map(str, version))}, which neither psana nor ffb"
        " decodes; they know hsd 1.2.3, raw 2.0.0, raw 3.0.0"
    )
    assert len(t.problems) == len(wish)
    assert all(said in p for p in t.problems), t.problems


def test_the_oldest_is_told_apart_by_its_name(tmp_path):
    rng = np.random.default_rng(5)
    oldest = (1, 2, 3)
    made = [[shots(rng)["both"]]] * 3
    path = write(tmp_path / "run.xtc2", made, version=oldest, config=False)
    run = next(FilesSource([path]).runs())
    wish = {
        "old": Field("hsd", "raw", "waveforms.0"),
        "whole": Field("hsd", "hsd", "waveforms"),
        "pad": Field("hsd", "hsd", "padded.0"),
        "status": Field("hsd", "hsd", "fex_status.0"),
        "w": Field("hsd", "hsd", "waveforms.0"),
    }
    t = take(run, wish)
    said = {p.split(":")[0].split()[-1]: p for p in t.problems}
    assert said.keys() == wish.keys() - {"w"}
    assert "nearest is 'hsd.waveforms.0'" in said["old"]
    assert "take an entry of hsd by segment, such as waveforms.0" in said["whole"]
    assert "lacks fex.gate" in said["pad"]
    assert t.rows[0].values["w"].shape == (64,)
    assert not any("psana decodes" in n for n in t.notes), t.notes
