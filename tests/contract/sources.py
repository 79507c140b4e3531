"""The sources that must keep the contract, and the truth about what they read."""

import numpy as np

from ffb.batch import Batch
from ffb.schema import CORE, Column, Schema
from ffb.shot import BeginStep, Field
from ffb.sink import Provenance
from ffb.sources import synthetic as syn
from ffb.sources.files import FilesSource
from ffb.sources.psana import Meaning
from ffb.sources.replay import ReplaySource
from ffb.sources.shmem import ShmemSource
from ffb.testing.fabricate import LiveWriter
from ffb.wire import EndRun, Header, encode
from ffb.writers.capture import CaptureWriter
from tests.contract.readers import Case, Row

XTC2 = {
    "area": Field("jungfrau", "raw", "raw"),
    "edge": Field("tmo_opal", "ttfex", "fltpos"),
    "i0": Field("gasdet", "raw", "f11ENRC"),
    "wave": Field("w8", "raw", "raw_3"),
    "count": Field("w8", "fex", "integral_2"),
}
SLOW = {"pv": Field("epics", "raw", "lxt_vitara")}


def truth_of(spec, i, slow=True):
    """Shot ``i`` of a fabricated run."""
    values = {
        "area": spec.raw(i) if spec.has_area(i) else None,
        "edge": spec.fltpos(i) if spec.has_time_tool(i) else None,
        "i0": spec.i0(i),
        "wave": spec.wave(i, 3),
        "count": spec.wave_integral(i, 2),
    }
    if slow:
        values["pv"] = spec.pv(spec.slow_index(i))
    codes = set(spec.codes(i))
    return Row(spec.timestamp(i), spec.pulse_id(i), codes, spec.step(i), values)


def xtc2_case(spec, make, slow=True, **more):
    steps = [{"lxt": spec.motor(s), "step_value": float(s)} for s in range(spec.steps)]
    given = {
        "make": make,
        "fields": XTC2 | (SLOW if slow else {}),
        "infos": [(spec.exp, spec.run)],
        "shots": [spec.shots],
        "steps": [steps],
        "row": lambda run, i: truth_of(spec, i, slow),
        "wrong": Field("jungfrau", "raw", "row"),
        "near": "raw.raw",
        "quiet": False,
    }
    return Case(**given | more)


def synthetic_runs_case(spec, **given):
    """Two synthetic runs of three steps, read from themselves or from a capture."""
    steps = [{"delay": d} for d in (-2.0, 0.0, 2.0)]
    return Case(
        infos=[(spec.exp, spec.run), (spec.exp, spec.run + 1)],
        shots=[spec.shots] * 2,
        steps=[steps] * 2,
        **given,
    )


def synthetic_case():
    spec = syn.Synthetic(
        run=5, runs=2, shots=60, steps=3, samples=(32, 16), rate=500.0,
        missing={"timetool": 0.3, "area": 0.2, "timing": 0.1}, shape=(2, 16, 24),
    )  # fmt: skip
    runs = list(syn.SyntheticSource(spec).runs())
    fields = {"area": syn.AREA, "wave": syn.WAVE, "i0": syn.ENERGY, "edge": syn.EDGE}

    def row(r, i):
        run = runs[r]
        timed = not run.missing["timing"][i]
        return Row(
            int(run.timestamps[i]),
            run.pulse_id(i) if timed else 0,
            set(run.codes(i)) if timed else None,
            int(run.step_of[i]),
            {name: run.value(f, i) for name, f in fields.items()},
        )

    return synthetic_runs_case(
        spec,
        make=lambda: syn.SyntheticSource(spec),
        fields=fields,
        row=row,
        wrong=Field("timetol", "ttfex", "fltpos"),
        near="timetool",
        quiet=True,
    )


def file_case(request):
    spec, path = request.getfixturevalue("run_spec"), request.getfixturevalue("run_file")
    return xtc2_case(spec, lambda: FilesSource([path]))


def folder_case(request):
    spec, folder = request.getfixturevalue("run_spec"), request.getfixturevalue("experiment_dir")
    return xtc2_case(spec, lambda: FilesSource(folder=folder, exp=spec.exp))


def growing_case(request):
    """A folder that grows by a few shots whenever the source has read what there is."""
    spec = request.getfixturevalue("run_spec")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("growing")
    writers = []

    def close():
        for writer in writers:
            writer.abandon()

    def make():
        writers.insert(0, LiveWriter(folder, spec, inprogress=True))
        writers[0].advance(2)
        return FilesSource(folder=folder, exp=spec.exp, growing=True, settle=0.05)

    def wait():
        if not writers[0].advance(7):
            writers[0].finish()

    return xtc2_case(spec, make, quiet=True, wait=wait, close=close)


def shmem_case(request):
    """The run from shared memory, slower than it is read."""
    spec, path = request.getfixturevalue("run_spec"), request.getfixturevalue("run_file")
    serve, tag = request.getfixturevalue("shmem_server"), request.getfixturevalue("tag")

    def make():
        serve(path, "--rate", 40)
        return ShmemSource(tag, meanings=Meaning)

    return xtc2_case(spec, make, slow=False, quiet=True)


class Recorder:
    """Puts the rows of synthetic runs into a capture, as one producer's or several's."""

    COLUMNS = (
        Column("i0", "<f8", unit="mJ", reducer="beam"),
        Column("edge", "<f8", unit="px", reducer="timing"),
        Column("timing/present", "|b1", reducer="timing"),
        Column("wave", "<u2", (32,), ("sample",), "ADU", reducer="beam"),
        Column("scan/delay", "<f8", unit="ps"),
    )

    def __init__(self, path, producers=1):
        self.schema = Schema((*CORE, *self.COLUMNS))
        self.writer, self.producers = CaptureWriter(path), producers
        self.seq = dict.fromkeys(range(producers), 0)

    def send(self, run, kind, body, producer=0, schema=None, times=1):
        self.seq[producer] += 1
        header = Header(kind, run.info.exp, run.info.run, run.info.began, f"p{producer}", 1)
        for _ in range(times):
            header = header._replace(seq=self.seq[producer])
            self.writer.write(encode(header, schema, body))

    def record(self, run):
        for k in range(self.producers):
            self.send(run, "begin_run", Provenance(), k, self.schema)
            self.send(run, "status", {"read": 0}, k)
        for step, delay in enumerate(run.delays):
            for k in range(self.producers):
                begun = BeginStep(step, {"delay": float(delay)}, f"step {step}")
                self.send(run, "step", begun, k, times=2)
                mine = [i for i in np.flatnonzero(run.step_of == step) if i % self.producers == k]
                for at in range(0, len(mine), 7):
                    batch = self.batch(run, mine[at : at + 7])
                    self.send(run, "shots", batch, k, self.schema, times=1 + at % 2)
        for k in range(self.producers):
            self.send(run, "end_run", EndRun(), k)

    def batch(self, run, shots):
        batch = Batch(self.schema, len(shots))
        for row, i in enumerate(shots):
            there = not run.missing["timetool"][i]
            values = {
                "timestamp": run.timestamps[i], "pulse_id": run.pulse_id(i),
                "step": run.step_of[i], "lightStatus/xray": run.xray[i],
                "lightStatus/laser": run.laser[i], "i0": run.energy[i],
                "edge": run.edge[i] if there else np.nan, "timing/present": there,
                "wave": run.wave(i), "scan/delay": run.delays[run.step_of[i]],
            }  # fmt: skip
            for name, value in values.items():
                batch.columns[name][row] = value
        return batch


RECORDED = {
    "i0": Field("", "", "i0"),
    "edge": Field("", "", "edge"),
    "wave": Field("", "", "wave"),
    "laser": Field("", "", "lightStatus/laser"),
}


SPEC = syn.Synthetic(
    run=8, runs=2, shots=60, steps=3, samples=(32,), missing={"timetool": 0.3}, shape=(1, 9, 9)
)


def recorded_runs():
    return list(syn.SyntheticSource(SPEC).runs())


def replay_case(request):
    runs = recorded_runs()
    path = request.getfixturevalue("tmp_path_factory").mktemp("replay") / "capture"
    recorder = Recorder(path)
    for run in runs:
        recorder.record(run)
    recorder.writer.close()

    def row(r, i):
        run = runs[r]
        values = {
            "i0": run.energy[i],
            "edge": None if run.missing["timetool"][i] else run.edge[i],
            "wave": run.wave(i),
            "laser": run.laser[i],
        }
        return Row(int(run.timestamps[i]), run.pulse_id(i), None, int(run.step_of[i]), values)

    return synthetic_runs_case(
        SPEC,
        make=lambda: ReplaySource(path),
        fields=RECORDED,
        row=row,
        wrong=Field("", "", "egde"),
        near="edge",
        quiet=False,
        areas=(),
        absent=("edge",),
    )


CASES = {
    "replay": replay_case,
    "synthetic": lambda request: synthetic_case(),
    "file": file_case,
    "folder": folder_case,
    "growing": growing_case,
    "shmem": shmem_case,
}
ON_PSANA = {"file", "folder", "growing", "shmem"}
