"""Runs of high-speed digitizers with every kind of shot, and what psana makes of them."""

import struct

import numpy as np

from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import I32, SPECS, U8, U32, Service, Spec, timing_record
from ffb.sources.xtc2_writer import Xtc2Writer

T0 = 1_700_000_000_000_000_000
GATE_NS, BASELINE, RANGE = 100, 2048, (100, 3001)
PAD = int(GATE_NS * 0.160 * 13 / 14) * 40
RAW, FEX = 1, 2


def spec(version=(3, 0, 0), channel="chan00"):
    fields = {"eventHeader": (U32, 1), channel: (U8, 1)}
    return Spec("hsd", alg(version), version, fields)


def alg(version):
    """The oldest is called as the detector's type."""
    return "hsd" if version == (1, 2, 3) else "raw"


def configuration(version):
    """What the run's Configure tells of a segment; the oldest has a number for every channel."""
    if version == (1, 2, 3):
        values = {"fex.gate": PAD // 40, "fex.ymin": RANGE[0], "fex.ymax": RANGE[1]}
        values = {k: np.array([v, 1, 2, 3], np.int32) for k, v in values.items()}
        return Spec("hsd", "config", version, dict.fromkeys(values, (I32, 1))), values
    fields = dict(SPECS["hsd_config"].fields)
    values = dict.fromkeys(fields, 0) | {
        "user.fex.corr.baseline": BASELINE, "user.fex.gate_ns": GATE_NS,
        "user.fex.ymin": RANGE[0], "user.fex.ymax": RANGE[1],
    }  # fmt: skip
    return Spec("hsd", "config", version, fields), values


def stream(number, samples, *, size=None, flags=0):
    """One stream: header and samples; ``size`` is what the header pretends."""
    samples = np.asarray(samples, np.uint16)
    word = (len(samples) if size is None else size) | flags
    return struct.pack("<4I", word, number << 24 | 0x1234, 7, 9) + samples.tobytes()


def skip(*lanes):
    return [0x8000 | lanes[0], *(0x8000 | n for n in (*lanes[1:], 0, 0, 0)[:3])]


def record(written, *streams, words=2, bits=0, channel="chan00"):
    """What a segment writes: ``written`` says which streams, ``words`` are those of its header."""
    header = np.zeros(words, np.uint32)
    header[:1] = 1 << 24 | written << 20 | bits
    return {"eventHeader": header, channel: np.frombuffer(b"".join(streams), np.uint8)}


def random_peaks(rng, most=5):
    """Samples of stream 1: baselines, then peaks, with skips of several groups now and then."""
    out = [*skip(0)] * int(rng.integers(0, 2)) + [*rng.integers(0, 99, 4)]
    for _ in range(rng.integers(0, most)):
        for _ in range(rng.integers(1, 3)):
            out += skip(*rng.integers(0, 60, 4))
        out += [*rng.integers(0, 1 << 15, 4 * int(rng.integers(1, 9)))]
    return out + (skip(5) if rng.random() < 0.5 else [])


def shots(rng, channel="chan00", n=64):
    """Records of well-formed shots of every kind, by a name."""
    wave, zeros = rng.integers(0, 4096, n), np.zeros(4, int)
    late = [*zeros, 1, 1, 1, 1, *skip(PAD - 7), *wave]
    raw, fex = stream(0, wave), stream(1, random_peaks(rng))
    of = {"channel": channel}
    return {
        "both": record(RAW | FEX, raw, fex, **of),
        "fex first": record(RAW | FEX, fex, raw, **of),
        "raw alone": record(RAW, raw, **of),
        "fex alone": record(FEX, fex, **of),
        "no peak": record(RAW | FEX, raw, stream(1, skip(9) + skip(0, 1, 2, 3)), **of),
        "empty streams": record(RAW | FEX, stream(0, []), stream(1, []), **of),
        "nothing written": record(0, raw, **of),
        "no bytes": record(RAW | FEX, **of),
        "baselines alone": record(FEX, stream(1, [*skip(3), 1, 2, 3, 4]), **of),
        "up to the end": record(FEX, stream(1, [*zeros, *range(1, 9), *skip(4), *range(8)]), **of),
        "beyond the gate": record(FEX, stream(1, late), **of),
        "out of range": record(FEX, stream(1, random_peaks(rng), flags=1 << 29), **of),
        "memory overflow": record(RAW, stream(0, wave, flags=5 << 29), **of),
        "a third stream": record(RAW, stream(7, [3] * 6), raw, **of),
        "one word": record(RAW | FEX, raw, fex, words=1, bits=0xFFFFF, **of),
        "five words": record(RAW | FEX, raw, fex, words=5, bits=3 << 22, **of),
    }


def broken(rng, channel="chan00"):
    """Records that psana would read beyond their bytes, by a name."""
    wave = rng.integers(0, 4096, 64)
    raw, fex = stream(0, wave), stream(1, [*range(8), *skip(3)])
    made = {
        "no header": record(RAW, raw, words=0, channel=channel),
        "fex missing": record(RAW | FEX, raw, channel=channel),
        "samples missing": record(RAW, stream(0, wave, size=65), channel=channel),
        "huge": record(RAW, stream(0, wave, size=0x1FFF_FFFF), channel=channel),
        "odd groups": record(FEX, stream(1, range(7)), channel=channel),
        "half a header": record(RAW | FEX, raw, fex[:9], channel=channel),
        "no stream": record(RAW, stream(9, wave), channel=channel),
    }
    return made


def write(
    path, records, *, version=(3, 0, 0), segments=(0,), channel="chan00", config=True, ends=True
):
    """Write a run: ``records`` are lists of a record per segment, ``None`` for one that misses."""
    writer = Xtc2Writer(path, "tmox49820", 7)
    timing = writer.declare(SPECS["timing"], "timing")
    slots = [writer.declare(spec(version, channel), "hsd", s, uid=f"h{s}") for s in segments]
    kind, values = configuration(version)
    for s in segments if config else ():
        writer.declare(kind, "hsd", s, uid=f"h{s}", config=values)
    for i, service in enumerate((Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP)):
        writer.put(service, T0 + i)
    writer.put(Service.ENABLE, T0 + 3)
    for i, made in enumerate(records):
        got = [(s, r) for s, r in zip(slots, made, strict=True) if r is not None]
        shot = [(timing, timing_record(100 + i, [40])), *got]
        writer.put(Service.L1_ACCEPT, T0 + 10 + i, shot)
    for i, service in enumerate((Service.DISABLE, Service.END_STEP, Service.END_RUN)):
        writer.put(service, T0 + 10_000 + i)
    writer.close()
    return path


def psanas(path):
    """Yield of every shot what psana's own interface gives, by name of our field."""
    psana = import_psana("psana")
    run = next(psana.DataSource(files=str(path), skip_calib_load="all", log_level="ERROR").runs())
    detector = run.Detector("hsd")
    raw = detector.raw if hasattr(detector, "raw") else detector.hsd
    for event in run.events():
        out = {}
        for s, got in (raw.waveforms(event) or {}).items():
            out |= {f"waveforms.{s}": v.copy() for k, v in got.items() if k != "times"}
        for s, got in (raw.peaks(event) or {}).items():
            ((start, peaks),) = got.values()
            out[f"peaks.{s}.start"] = np.array(start)
            out[f"peaks.{s}.length"] = np.array([len(p) for p in peaks])
            out[f"peaks.{s}.samples"] = np.concatenate(peaks)
        for s, got in (raw.padded(event) or {}).items():
            out |= {f"padded.{s}": v.copy() for k, v in got.items() if k != "times"}
        status = raw.fex_status(event) if hasattr(raw, "fex_status") else None
        for s, got in (status or {}).items():
            (((flag,), baselines),) = got.values()
            out[f"fex_status.{s}"] = np.array(flag)
            out |= {f"baselines.{s}": b.copy() for b in baselines}
        yield out
