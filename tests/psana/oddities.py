"""Files that hold, datagram by datagram, what real ones do besides the usual."""

import struct

import numpy as np

from ffb.sources.xtc2 import CORRUPTED
from tests.unit.dgrams import data, dgram, names

INFO = {"expt": ("str", 1), "runnum": ("u4", 0)}
TIME = {"pulseId": ("u8", 0), "inhibitCounts": ("u4", 1), "sequenceValues": ("u2", 1)}
BARE = {"pulseId": ("u8", 0), "ebeamPresent": ("u1", 0)}
CAM = {"raw": ("u2", 2), "aux": ("u2", 1)}
ASICS = {"raw": ("u2", 3)}
FEX = {"peak.area": ("f4", 0), "peak.at": ("i1", 0), "peaks": ("f8", 1)}
MANY = {
    "a": ("u1", 1), "state:s": ("enum", 0), "shut:s": ("dict", 0), "open:s": ("dict", 0),
    "b": ("i1", 2), "word": ("str", 1), "c": ("f4", 3), "d": ("i8", 4), "none": ("f8", 1),
    "e": ("f8", 0), "modes": ("u2", 1), "f": ("u1", 0), "g": ("i2", 2),
}  # fmt: skip
SCAN = {"lens": ("f8", 0), "count": ("i4", 0), "note": ("str", 1), "step_docstring": ("str", 1)}
PVS = {"temp": ("f8", 0), "stale": ("f8", 0), "spectrum": ("f4", 1), "label": ("str", 1)}
CHUNK_INFO = {"filename": ("str", 1), "chunkid": ("u4", 0)}
MORE = {"stale": ("f8", 0), "late": ("f8", 0)}
ALIAS = {"keys": ("str", 1), "temp": ("str", 1)}
SEGMENTS = (7, 3, 11)
T0 = 1_000_000_000 << 32


def stream(node, k=0, runinfo=True):
    """Configure and a maker of shots; segments of ``cam`` lie in streams 0 and 1."""
    base = node << 8
    of_cam = SEGMENTS if node == 0 else (20,)
    parts = [names(base + 10 + s, "cam", "raw", CAM, s, "camera", (2, 0, 1)) for s in of_cam]
    if runinfo:
        parts.insert(0, names(base + 1, "runinfo", "runinfo", INFO, version=(0, 0, 1)))
    parts.append(names(base + 60, "chunkinfo", "chunkinfo", CHUNK_INFO, version=(0, 0, 1)))
    if node == 0:
        parts += [
            names(44, "epics", "raw", MORE, version=(2, 0, 0)),
            names(2, "xpm", "raw", TIME, dettype="ts", version=(2, 0, 0)),
            names(3, "bare", "raw", BARE, dettype="ts", version=(2, 1, 0)),
            names(4, "asics", "raw", ASICS, 2, "epixm320", (0, 1, 0)),
            names(5, "asics", "config", {"mode": ("u4", 0)}, 2, "epixm320", (1, 0, 0)),
            names(6, "cam", "fex", FEX, 3, "camera", (9, 1, 0)),
            names(7, "many", "raw", MANY, version=(4, 5, 6)),
            names(8, "knob", "config", {"mode": ("u4", 0)}),
            names(9, "scan", "raw", SCAN, version=(2, 0, 0)),
            names(40, "epics", "raw", PVS, version=(2, 0, 0)),
            names(41, "epicsinfo", "epicsinfo", ALIAS, version=(1, 0, 0)),
            names(42, "beckhoff", "raw", PVS, dettype="epics", version=(2, 0, 0)),
            names(43, "old", "raw", {"x": ("u4", 0)}, version=(1, 0, 0)),
            data(5, {"mode": ("u4", 0)}, {"mode": 1}), data(8, {"mode": ("u4", 0)}, {"mode": 2}),
            data(41, ALIAS, {"keys": "epicsname", "temp": "MFX:TEMP:01"}),
        ]  # fmt: skip
    return dgram(2, T0, *parts), of_cam, base


def blocks(node, i):
    """Everything of shot ``i`` in one stream, by detector."""
    rng = np.random.default_rng([node, i])
    _, of_cam, base = stream(node)
    out = [
        data(base + 10 + s, CAM, {"raw": rng.integers(0, 9, (6, 8)), "aux": [i, s]}) for s in of_cam
    ]
    if node == 0:
        many = {
            "a": rng.integers(0, 255, 5), "state:s": i % 2, "shut:s": 0, "open:s": 1,
            "b": rng.integers(-99, 99, (2, 3)), "word": "at" + "x" * (i % 3),
            "c": rng.normal(size=(2, 1, 3)), "d": rng.integers(-9, 9, (2, 1, 2, 3)), "none": [],
            "e": np.nan if i == 3 else i / 8, "modes": [i, 2], "f": i, "g": [[i, -i]],
        }  # fmt: skip
        out += [
            data(2, TIME, {"pulseId": 100 + i, "inhibitCounts": range(8),
                           "sequenceValues": np.arange(16) + i}, data_first=True),
            data(3, BARE, {"pulseId": 7, "ebeamPresent": 1}),
            data(4, ASICS, {"raw": rng.integers(0, 9, (4, 3, 5))}),
            data(6, FEX, {"peak.area": i / 2, "peak.at": -i, "peaks": [i, 1.0]}),
            data(7, MANY, many), data(43, {"x": ("u4", 0)}, {"x": i}),
        ]  # fmt: skip
    return out


def damaged(block, bits):
    return block[:4] + struct.pack("<H", bits) + block[6:]


def pvs(i, spectrum=(1, 2)):
    values = {"temp": i / 4, "stale": 1.0, "spectrum": spectrum, "label": f"L{i}"}
    late = data(44, MORE, {"stale": 2.0, "late": i + 0.5})
    return data(40, PVS, values), late, data(42, PVS, values | {"temp": -i})


def turn_of(node, i):
    """What an Enable says of the next file: the streams turn at different steps."""
    name = f"tstx00117-r0005-s{node:03d}-c001.xtc2"
    block = data((node << 8) + 60, CHUNK_INFO, {"filename": name, "chunkid": 1})
    return (block,) if i == 7 * (1 - node) else ()


def run_dgrams(node, shots=14, runnum=5, at=T0, end=True, turns=False):
    """All datagrams of a run: shots missing, damaged, of service 11, with keepraw bits."""
    base = node << 8
    yield dgram(4, at + 1, data(base + 1, INFO, {"expt": "tstx00117", "runnum": runnum}))
    slow, here = 0, lambda *b: b if node == 0 else ()
    yield dgram(10, at + 2, *here(*pvs(0)))
    for i in range(shots):
        stamp = at + 100 * (i + 1)
        if i % 7 == 0:
            step = {"lens": i / 2, "count": i, "note": f"n{i}", "step_docstring": "x"}
            yield dgram(6, stamp - 30, *here(data(9, SCAN, step)))
            yield dgram(8, stamp - 20, *(turn_of(node, i) if turns else ()))
        if i == 9:
            slow += 1
            yield dgram(10, stamp - 10, *here(*pvs(slow)))
        parts = blocks(node, i)
        if i == 2:
            parts = []
        elif i == 4:
            parts = parts[1:]  # a camera without one of its segments
        elif i == 5:
            parts = [damaged(p, b) for p, b in zip(parts, (1, 2, 16, 32, 64, 1 << 12) * 3)]  # noqa: B905
        elif i == 8:
            parts = parts[::-1]
        shot = bytearray(dgram(11 if i == 6 else 12, stamp, *parts))
        shot[8:11] = (0x40_0000 | i).to_bytes(3, "little")
        if i == 10:
            shot[16:18] = CORRUPTED.to_bytes(2, "little")
        if i == 11:
            shot[16:18] = (1 << 5).to_bytes(2, "little")
        if not (node and i % 5 == 3):  # the second stream misses some
            yield bytes(shot)
        if i % 7 == 6:
            yield dgram(9, stamp + 10)
            yield dgram(7, stamp + 20)
    if end:
        yield dgram(5, at + 100 * (shots + 2))


def is_turn(d):
    return d[11] & 15 == 8 and len(d) > 24


def write(path, node=0, **more):
    files = [[stream(node)[0]]]
    for d in run_dgrams(node, **more):
        files[-1].append(d)
        if is_turn(d):
            files.append([])
    for number, content in enumerate(files):
        path.with_name(path.name.replace("c000", f"c{number:03d}")).write_bytes(b"".join(content))
    return path


def smalldata(folder, path, node, **more):
    """The index that psana wants beside a stream."""
    config = stream(node)[0]
    info = {"intOffset": ("u8", 0), "intDgramSize": ("u8", 0)}
    extra = names(
        (node << 8) + 254, "smdinfo", "offsetAlg", info, dettype="offset", version=(0, 0, 0)
    )
    size = len(config) - 12 + len(extra)
    out, at = config[:20] + struct.pack("<I", size) + config[24:] + extra, len(config)
    for d in run_dgrams(node, **more):
        where = {"intOffset": at, "intDgramSize": len(d)}
        small = dgram(
            d[11] & 15, int.from_bytes(d[:8], "little"), data((node << 8) + 254, info, where)
        )
        out += small if d[11] & 15 in (11, 12) else d
        at = 0 if is_turn(d) else at + len(d)
    (folder / "smalldata").mkdir(exist_ok=True)
    (folder / "smalldata" / path.name.replace(".xtc2", ".smd.xtc2")).write_bytes(out)


def experiment(folder, **more):
    paths = [folder / f"tstx00117-r0005-s{node:03d}-c000.xtc2" for node in (0, 1)]
    for node, path in enumerate(paths):
        smalldata(folder, write(path, node, **more), node, **more)
    (folder / "tstx00117-r0005-s000-c000.xtc2.md5").write_text("no data")
    return paths
