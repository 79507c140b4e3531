"""Datagrams are read as psana reads them, and no datagram can do harm."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffb.shot import Field, FrameBlock
from ffb.sources.fields import Catalogue
from ffb.sources.gather import Gather
from ffb.sources.xtc2 import CORRUPTED, Configure, FieldType, Xtc2Error, service, size, timestamp
from tests.unit.dgrams import data, dgram, names, xtc

SCALARS = {
    "u1": ("u1", 0), "i8": ("i8", 0), "name": ("str", 1), "f4": ("f4", 0), "wave": ("u2", 1),
    "plane": ("f8", 2), "f8": ("f8", 0),
}  # fmt: skip
VALUES = {
    "u1": 7, "i8": -3, "name": "hello", "f4": np.nan, "wave": [1, 2, 3],
    "plane": [[1.5, 2.5]], "f8": 0.1,
}  # fmt: skip
RAW = {"frame": ("u4", 0), "raw": ("u2", 3)}
TIME = {"pulseId": ("u8", 0), "x": ("u2", 1), "sequenceValues": ("u2", 1)}
CLOCK = {"pulseId": 2**60 + 1, "x": [9], "sequenceValues": np.arange(18)}
CONFIG = dgram(
    2, 1,
    names(0x101, "det", "raw", SCALARS),
    xtc(0, names(0x202, "cam", "raw", RAW, 3, "jungfrau") + names(0x203, "cam", "raw", RAW, 1)),
    names(0x104, "timing", "raw", TIME, dettype="ts"),
    data(0x101, SCALARS, VALUES),
)  # fmt: skip


def frame(n, rows=4, cols=6):
    return {"frame": n, "raw": (1000 * n + np.arange(rows * cols)).reshape(1, rows, cols)}


def shot(*, damage=0, segments=(3, 1), values=VALUES, nested=True, first=False, **more):
    blocks = {3: 0x202, 1: 0x203}
    cams = b"".join(data(blocks[n], RAW, frame(n, **more), data_first=first) for n in segments)
    cams = xtc(0, xtc(0, cams)) if nested else cams
    return dgram(
        12, 5 << 32 | 77, data(0x101, SCALARS, values), cams,
        data(0x104, TIME, CLOCK), damage=damage,
    )  # fmt: skip


FIELDS = {
    "small": Field("det", "raw", "u1"),
    "nan": Field("det", "raw", "f4"),
    "wave": Field("det", "raw", "wave"),
    "plane": Field("det", "raw", "plane"),
    "again": Field("det", "raw", "wave"),
    "last": Field("det", "raw", "f8"),
    "count": Field("cam", "raw", "frame"),
    "cam": Field("cam", "raw", "raw"),
    "pulse": Field("timing", "raw", "pulseId"),
}
SHAPES = {"wave": (3,), "plane": (1, 2), "again": (3,), "cam": (2, 4, 6)}


def reader():
    catalogue = Catalogue([Configure(CONFIG)])
    wanted = {k: catalogue.resolve(f, SHAPES.get(k))[1] for k, f in FIELDS.items()}
    block = FrameBlock({k: w.input for k, w in wanted.items()}, 3)
    return Gather(wanted, 1, catalogue.clock), block


def as_array(raw):
    out = np.frombuffer(b"\1" + raw, np.uint8)[1:]  # at an odd address, read-only
    assert not out.flags.writeable
    return out


def test_header():
    d = shot()
    assert (service(d), timestamp(d), size(d + b"more")) == (12, 5 << 32 | 77, len(d))
    with pytest.raises(Xtc2Error, match="10 bytes"):
        size(d[:10])
    with pytest.raises(Xtc2Error, match=r"buffer of 99.* at byte 20"):
        size(d[:99])


def test_configure_tells_names_types_and_values():
    c = Configure(CONFIG)
    cam = c.names[0x202]
    assert cam[:6] == ("cam", "raw", 3, "jungfrau", "cam-3", (1, 2, 3))
    assert cam.fields == (FieldType("frame", 2, 0), FieldType("raw", 1, 3))
    assert [str(f) for f in c.names[0x101].fields][1:5] == [
        "int64", "string", "float32", "uint16, rank 1",
    ]  # fmt: skip
    assert c.values["det", "raw", 0]["name"] == "hello"


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_shot_is_gathered_in_place(nested, first):
    gather, block = reader()
    block.buffer[:] = 0xEE
    d = as_array(shot(nested=nested, first=first))
    gather([d], block, 1)
    assert block.present[1].all()
    assert block.frames["small"][1] == 7
    assert np.isnan(block.frames["nan"][1])
    assert block.frames["wave"][1].tolist() == block.frames["again"][1].tolist() == [1, 2, 3]
    assert block.frames["plane"][1].tolist() == [[1.5, 2.5]]
    assert block.frames["last"][1] == 0.1
    assert block.frames["count"][1].tolist() == [1, 3], "segments in their order"
    assert block.frames["pulse"][1] == block.pulse_id[1] == 2**60 + 1
    assert block.codes[1].tolist() == list(range(18))
    assert (block.timestamp[1], block.timed[1]) == (5 << 32 | 77, True)
    one, three = gather.segments([d], "cam")
    assert one.tolist() == frame(1)["raw"].ravel().tolist()
    assert three.tolist() == frame(3)["raw"].ravel().tolist()
    assert three.base is not None
    assert block.frames["wave"][0].tobytes() == block.frames["wave"][2].tobytes() == b"\xee" * 6


def test_a_missing_segment_is_an_absent_input():
    gather, block = reader()
    gather([as_array(shot())], block, 0)
    d = as_array(shot(segments=(3,)))
    gather([d], block, 0)
    assert not block.present[0, [block.index["cam"], block.index["count"]]].any()
    assert block.present[0].sum() == len(FIELDS) - 2
    assert gather.segments([d], "cam") is None
    assert not any(c.misfit for c in gather.counts().values())


def test_another_shape_is_absent_and_counted():
    gather, block = reader()
    gather([as_array(shot(values=VALUES | {"wave": [1, 2]}, cols=5))], block, 0)
    gather([as_array(shot(values=VALUES | {"wave": []}))], block, 0)
    misfits = {name: c.misfit for name, c in gather.counts().items() if c.misfit}
    assert misfits == {"wave": 2, "again": 2, "cam": 1}
    absent = {n for n in FIELDS if not block.present[0, block.index[n]]}
    assert absent == {"wave", "again"}
    assert block.frames["last"][0] == 0.1, "what comes behind the odd array is found"


def test_of_a_corrupted_datagram_only_the_timestamp_is_left():
    gather, block = reader()
    gather([as_array(shot())], block, 0)
    gather([as_array(shot(damage=CORRUPTED))], block, 0)
    assert not block.present[0].any()
    assert (block.timed[0], block.pulse_id[0], block.codes[0].sum()) == (False, 0, 0)
    assert block.timestamp[0] == 5 << 32 | 77
    gather([as_array(shot(damage=0xFFFF & ~CORRUPTED))], block, 0)
    assert block.present[0].all()


def test_streams_are_put_together():
    first = dgram(2, 1, names(0x101, "det", "raw", SCALARS))
    second = dgram(2, 1, names(0x101, "timing", "raw", TIME, dettype="ts"))
    catalogue = Catalogue([Configure(first), Configure(second)])
    wanted = {k: catalogue.resolve(FIELDS[k], SHAPES.get(k))[1] for k in ("wave", "pulse", "last")}
    gather = Gather(wanted, 2, catalogue.clock)
    block = FrameBlock({k: w.input for k, w in wanted.items()}, 1)
    a = as_array(dgram(12, 9, data(0x101, SCALARS, VALUES)))
    b = as_array(dgram(12, 9, data(0x101, TIME, CLOCK)))
    for dgrams, there in (([a, b], [1, 1, 1]), ([None, b], [0, 1, 0]), ([a, None], [1, 0, 1])):
        gather(dgrams, block, 0)
        assert block.present[0].tolist() == there
        assert (block.timestamp[0], block.timed[0]) == (9, bool(there[1]))


def test_a_block_may_hold_other_inputs_in_another_order():
    gather, block = reader()
    d = [as_array(shot())]
    other = FrameBlock({k: block.inputs[k] for k in ("last", "cam", "wave")}, 2)
    for _ in range(2):
        gather(d, block, 0)
        gather(d, other, 1)
        assert other.present.tolist() == [[False] * 3, [True] * 3]
        assert (other.frames["last"][1], other.frames["wave"][1].tolist()) == (0.1, [1, 2, 3])
        assert gather.segments(d, "cam")[1][0] == 3000
    with pytest.raises(IndexError, match="row 2"):
        gather(d, other, 2)


# ---------------------------------------------------------------------- hostile input


def within(error, raw):
    """Whether an error tells a place that can be in ``raw``."""
    return 0 <= error.offset <= len(raw)


def check(raw):
    """Read ``raw`` both ways: either may refuse it, and neither sees what the other does not."""
    configure, (gather, block) = Configure(CONFIG), reader()
    d = as_array(raw)
    try:
        plain = configure.decode(raw)
    except Xtc2Error as e:
        refused, plain = within(e, raw), None
        assert refused
    try:
        gather([d], block, 0)
    except Xtc2Error as e:
        refused = within(e, raw) and plain is None and not block.present.any()
        assert refused
        assert gather.segments([d], "cam") is None
        return
    if plain is None:
        return  # it looked at more than was asked for
    got = plain.get(("det", "raw", 0))
    for name in ("small", "nan", "last", "wave"):
        value = None if got is None else got[FIELDS[name].name]
        fits = np.shape(value) == block.inputs[name].shape
        assert block.present[0, block.index[name]] == (value is not None and fits)
        if value is not None and fits:
            assert np.asarray(value, block.inputs[name].dtype).tobytes() == (
                block.frames[name][0].tobytes()
            )


@given(st.integers(0, len(shot())))
@settings(max_examples=60, deadline=None)
def test_truncated(n):
    check(shot()[:n])
    with pytest.raises(Xtc2Error):
        Configure(CONFIG[: min(n, len(CONFIG) - 1)])


WORDS = st.sampled_from([0, 1, 11, 12, 13, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**31, 20])


@given(st.lists(st.tuples(st.integers(0, len(shot()) // 4 - 1), WORDS | st.integers(0, 2**32 - 1)),
                min_size=1, max_size=6))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_mutated(changes):
    raw = bytearray(shot())
    for word, value in changes:
        struct.pack_into("<I", raw, 4 * word, value)
    check(bytes(raw))


@given(st.lists(st.tuples(st.integers(12, len(CONFIG) - 1), st.integers(0, 255)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_mutated_configure(changes):
    raw = bytearray(CONFIG)
    for at, value in changes:
        raw[at] = value
    try:
        Catalogue([Configure(raw)])
    except Xtc2Error as e:
        refused = within(e, raw)
        assert refused


def test_parents_too_deep():
    deep = b""
    for _ in range(12):
        deep = xtc(0, deep)
    raw = dgram(12, 1, deep)
    with pytest.raises(Xtc2Error, match="deep"):
        Configure(CONFIG).decode(raw)
    gather, block = reader()
    with pytest.raises(Xtc2Error):
        gather([as_array(raw)], block, 0)


def hammer(n):
    """Mutate at random, for a process whose compiled code checks every index."""
    rng = np.random.default_rng(5)
    whole = shot()
    for _ in range(n):
        raw = bytearray(whole[: rng.integers(0, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, max(len(raw) - 4, 1), rng.integers(1, 5)):
            value = rng.choice([0, 1, 3, 12, 255, 2**31, 2**32 - 1, rng.integers(2**32)])
            raw[at : at + 4] = struct.pack("<I", int(value))[: len(raw) - at]
        check(bytes(raw))


def test_no_index_leaves_its_array(tmp_path):
    """The compiled walk raises IndexError for any byte it should not touch, and must not."""
    code = "from tests.unit.test_xtc2 import hammer; hammer(1500)"
    env = os.environ | {"NUMBA_BOUNDSCHECK": "1", "FFB_CACHE": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------------- what a run offers


def resolve(field, shape=None):
    return Catalogue([Configure(CONFIG)]).resolve(field, shape)[1]


@pytest.mark.parametrize(
    ("field", "shape", "sentence"),
    [
        (("cm", "raw", "raw"), None, "no detector 'cm' in this run; nearest is 'cam'"),
        (("det", "raw", "wve"), None, "det has no field raw.wve; nearest is 'raw.wave'"),
        (("det", "raw", "name"), None, "det.raw.name is a string; with record = true and"),
        (("det", "raw", "wave"), (3, 4), "[3, 4] is stated for det.raw.wave, which has 1 segment"),
        (("det", "raw", "f8"), (3,), "of rank 0"),
    ],
)
def test_a_wish_that_cannot_be_met_is_answered_with_a_sentence(field, shape, sentence):
    with pytest.raises(LookupError) as e:
        resolve(Field(*field), shape)
    assert sentence in str(e.value)


def test_areas_and_values():
    area = resolve(FIELDS["cam"], (2, 4, 6)).input
    assert (area.kind, area.shape, area.dtype) == ("area", (2, 4, 6), "<u2")
    assert resolve(FIELDS["cam"], (4, 6)).input == area
    assert resolve(FIELDS["cam"], (1, 4, 6)).input == area
    assert resolve(FIELDS["plane"], (1, 2)).input.kind == "value", "small, and no picture"
    assert resolve(FIELDS["plane"], (100, 100)).input.kind == "area", "80 kB"
    assert resolve(FIELDS["count"]).input.shape == (2,)
    assert resolve(FIELDS["wave"]).dims == (-1,)
    known = Catalogue([Configure(dgram(2, 1, names(1, "jf", "raw", RAW, 0, "jungfrau")))])
    assert known.resolve(Field("jf", "raw", "raw"), None)[1].input.shape == (1, 512, 1024)


# ---------------------------------------------------------------------- psana's own reading


def leaves(thing, prefix=""):
    for name, value in vars(thing).items():
        if name.startswith("_"):
            continue
        if hasattr(value, "__dict__") and not isinstance(value, np.ndarray):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def psana_values(decoded):
    out = {}
    for detector, segments in vars(decoded).items():
        if detector.startswith("_") or detector == "software":
            continue
        for number, algs in segments.items():
            for alg, block in vars(algs).items():
                if not alg.startswith("_"):
                    out[detector, alg, number] = dict(leaves(block))
    return out


@pytest.mark.psana
def test_every_field_of_every_datagram_is_what_psana_reads(tmp_path):
    from ffb.sources.standins import import_psana
    from ffb.testing.fabricate import RunSpec, write_run
    from ffb.testing.playback import load

    read = import_psana("psana.dgram").Dgram
    spec = RunSpec(steps=2, shots_per_step=15, segments=2, epix=2, corrupt=9, tt_missing=4)
    tape = load(write_run(tmp_path / "run.xtc2", spec))
    configure, theirs = Configure(tape[0]), read(view=memoryview(bytes(tape[0])))
    fields = 0
    for raw in tape:
        first = raw is tape[0]
        decoded = theirs if first else read(view=memoryview(bytes(raw)), config=theirs)
        assert (service(raw), timestamp(raw)) == (decoded.service(), decoded.timestamp())
        expected, got = psana_values(decoded), configure.decode(raw)
        assert got.keys() == expected.keys()
        for key, values in got.items():
            assert values.keys() == expected[key].keys()
            for name, value in values.items():
                assert np.array_equal(value, expected[key][name]), (key, name)
                assert np.shape(value) == np.shape(expected[key][name])
                fields += 1
    assert fields > 2500
    assert configure.values["epixquad", "config", 1]["asicPixelConfig"].shape == (4, 176, 192)
