"""Whatever psana offers of a detector is an input under psana's name, or refused with a way out."""

import numpy as np
import pytest

from ffb.shot import Field, FrameBlock
from ffb.sources.files import FilesSource
from ffb.sources.standins import import_psana
from ffb.sources.xtc2_specs import SPECS, U8, U16, Service, Spec, hsd_record, timing_record
from ffb.sources.xtc2_writer import Xtc2Writer

pytestmark = pytest.mark.psana

T0 = 1_700_000_000_000_000_000
LEFT_OUT = ("runinfo", "chunkinfo", "jungfrau_v1", "epix10ka_config", "hsd_config")
MORE = {
    "archon": Spec("archon", "raw", (1, 0, 0), {"value": (U16, 2)}),
    "axis": Spec("axis", "raw", (1, 0, 0), {"value": (U16, 2)}),
}
CONFIGS = {
    "epix10ka": {"asicPixelConfig": np.zeros((4, 176, 192), U8), "trbit": np.zeros(4, U8)},
    "hsd": dict.fromkeys(SPECS["hsd_config"].fields, 100),
}
SHAPES = {"jungfrau": (1, 512, 1024), "epix10ka": (352, 384), "epix100": (704, 768)}
FRAMES = {"archon": (2, 4800), "axis": (8, 16), "opal": (64, 128)}

#: Methods of psana's that are no data, or are made of other fields: (type, alg, name) to a word.
REFUSED = {
    ("encoder", "raw", "value"): "derive it",
    ("encoder", "interpolated", "value"): "derive it",
    ("hsd", "raw", "waveforms"): "waveforms.0",
    ("hsd", "raw", "padded"): "padded.0",
    ("hsd", "raw", "peaks"): "peaks.0.start",
    ("hsd", "raw", "peaksDict"): "peaks.0.start",
    ("hsd", "raw", "peak_times"): "peaks.0.start",
    ("hsd", "raw", "fex_status"): "fex_status.0",
    ("triginfo", "triginfo", "prescale"): "data",
    ("triginfo", "triginfo", "persist"): "data",
    ("triginfo", "triginfo", "monitor"): "data",
    ("ts", "raw", "eventcodes"): "sequenceValues",
    ("usdusb", "raw", "descriptions"): "configuration",
    ("wave8", "raw", "raw_all"): "raw_0 to raw_7",
    ("wave8", "fex", "integral_all"): "integral_0 to integral_7",
    ("wave8", "fex", "base_all"): "base_0 to base_7",
}
#: Fields as they were written, where psana's method of that name makes an image of them.
WRITTEN = {("opal", "raw", "image"), ("piranha4", "raw", "image")}
ANY = {"calib": "which calibrate it", "image": "which calibrate it", "config": "configuration"}


def record(kind, spec, rng):
    """One shot of a detector, of random numbers."""
    if kind == "hsd":
        return hsd_record(rng.integers(0, 999, 64), [(0, np.zeros(4)), (16, np.arange(8))])
    if kind == "timing":
        return timing_record(77, [40], 5)
    out = {}
    for name, (code, rank) in spec.fields.items():
        first = FRAMES.get(kind, (3, 4))[:rank]
        shape = SHAPES.get(kind, first) if name == "raw" else first
        value = rng.integers(1, 100, shape)
        out[name] = value.astype(code) if rank else code(value).item()
    return out


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "run.xtc2"
    writer = Xtc2Writer(path, "tstx49820", 7)
    rng = np.random.default_rng(4)
    specs = {k: s for k, s in (SPECS | MORE).items() if k not in LEFT_OUT}
    slots = {}
    for kind, spec in specs.items():
        slots[kind] = writer.declare(spec, f"my_{spec.dettype}", uid=f"{spec.dettype}0")
        if kind in CONFIGS:
            config = SPECS[f"{kind}_config"]
            writer.declare(config, f"my_{kind}", uid=f"{kind}0", config=CONFIGS[kind])
    for i, service in enumerate((Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP)):
        writer.put(service, T0 + i)
    writer.put(Service.ENABLE, T0 + 3)
    shot = [(slot, record(kind, specs[kind], rng)) for kind, slot in slots.items()]
    for i in range(9):
        writer.put(Service.L1_ACCEPT, T0 + 9 + i, shot)
    for i, service in enumerate((Service.DISABLE, Service.END_STEP, Service.END_RUN)):
        writer.put(service, T0 + 99 + i)
    writer.close()
    return path


def offered(run):
    """Every public name of psana's interfaces of the run: (detector, alg, name)."""
    for (detector, alg), names in run.detinfo.items():
        if detector.startswith("my_"):
            yield from ((detector, alg, name) for name in names)


def test_every_name_of_psanas_is_an_input_or_refused_with_a_way_out(run_path):
    psana = import_psana("psana")
    theirs = next(
        psana.DataSource(files=str(run_path), skip_calib_load="all", log_level="ERROR").runs()
    )
    names = list(offered(theirs))
    assert len({detector for detector, _, _ in names}) > 20
    run = next(FilesSource([run_path]).runs())
    inputs, problems = run.bind({".".join(n): Field(*n) for n in names}, {})
    block, shot = FrameBlock(inputs, 1), next(s for s in run if hasattr(s, "fill"))
    shot.fill(block, 0)
    event = next(theirs.events())
    refused = {p.split(":")[0].removeprefix("input "): p for p in problems}
    for name in (".".join(n) for n in names):
        detector, alg, method = name.split(".", 2)
        key = detector.removeprefix("my_"), alg, method
        if name in refused:
            assert REFUSED.get(key, ANY.get(method, "nothing")) in refused[name]
            continue
        assert key not in REFUSED, name
        if key in WRITTEN:
            continue
        want = np.asarray(getattr(getattr(theirs.Detector(detector), alg), method)(event))
        if inputs[name].kind == "area":
            got = np.stack(shot.segments(name))
        else:
            got = block.frames[name][0]
        np.testing.assert_array_equal(got.reshape(want.shape), want, err_msg=name)
    seen = {tuple(n.removeprefix("my_").split(".", 2)) for n in refused}
    assert seen >= REFUSED.keys(), REFUSED.keys() - seen
    assert len(inputs) > 100
    assert not any("psana decodes" in n for n in run.notes), run.notes
