"""What the small data of a run must hold, by a serial psana loop and float64 brute force."""

import numpy as np

from ffb.sources.standins import import_psana

#: As in ``service.toml``.
ROWS, COLS, BINS, GATE, BASELINE = (200, 312), (448, 576), 50, (20, 90), (0, 20)
DISTANCE_UM, ENERGY_KEV, HC = 100_000.0, 9.5, 12.398419843320026


def reference(path, spec):
    """Columns (shots, ...) of the run in ``path``, a shot a row, as psana and numpy see it."""
    import_psana("psana")
    from psana import DataSource

    run = next(DataSource(files=str(path), skip_calib_load="all", log_level="ERROR").runs())
    names = {"pedestals": "pedestals", "gain": "pixel_gain", "offset": "pixel_offset"}
    meta = {"experiment": spec.exp, "run": spec.run}
    run._calib_const["jungfrau"] = {
        **{psana: (spec.constants[ours], meta) for ours, psana in names.items()},
        "pixel_status": (spec.constants["status"].astype(np.uint64), meta),
    }
    run.dsparms.calibconst = run._calib_const
    area, tool, wave = (run.Detector(d) for d in ("jungfrau", "tmo_opal", "w8"))
    timing, gas, delay = run.Detector("timing"), run.Detector("gasdet"), run.Detector("lxt")
    gmd, pv, sample = (run.Detector(d) for d in ("gmd", "lxt_vitara", "sample_name"))
    good = (spec.constants["status"] == 0).all(axis=0)
    ring = Rings(spec, good)
    rows = []
    for number, step in enumerate(run.steps()):
        motor = delay(step)
        for event in step.events():
            codes = {c for c, on in enumerate(timing.raw.eventcodes(event)) if on}
            calibrated = area.raw.calib(event)
            fltpos = tool.ttfex.fltpos_ps(event)
            trace = wave.raw.raw_all(event)[0].astype(np.float64)
            base = trace[slice(*BASELINE)].mean()
            inside = trace[slice(*GATE)] - base
            rows.append(
                {
                    "timestamp": event.timestamp,
                    "pulse_id": timing.raw.pulseId(event),
                    "step": number,
                    "scan/lxt": motor,
                    "lightStatus/xray": 0 if 162 in codes else int(40 in codes),
                    "lightStatus/laser": 0 if 91 in codes else int(90 in codes),
                    "gasdet/f11ENRC": gas.raw.f11ENRC(event),
                    "timing/eventcodes": timing.raw.eventcodes(event),
                    "gmd/energy": gmd.raw.energy(event),
                    "tt_opal/fltpos_ps": np.nan if fltpos is None else fltpos,
                    "epicsUser/lxt_vitara": pv(event),
                    "epicsUser/sample_name": sample(event).encode(),
                    "damage/jungfrau_state": 0 if calibrated is None else 2,
                    "damage/tmo_opal_state": 0 if fltpos is None else 2,
                    "damage/tmo_opal": int(fltpos is not None),
                    "damage/gmd": 1,
                    "damage/xgmd_state": 0,
                    "tt/fltpos_ps": np.nan if fltpos is None else fltpos,
                    "diode/present": True,
                    "diode/area": inside.sum(),
                    "diode/baseline": base,
                    "diode/peak": inside.max(),
                    "spot/present": calibrated is not None,
                    **_spot(calibrated, good),
                    **ring(calibrated),
                    **_pixels(calibrated, good),
                }
            )
    return {name: np.array([r[name] for r in rows]) for name in rows[0]}


def _spot(frame, good):
    box = (0, slice(*ROWS), slice(*COLS))
    keep = good[box]
    if frame is None:
        blank = np.full(keep.shape, np.nan)
        return {"spot/sum": np.nan, "spot/mean": np.nan, "spot/npix": 0, "spot/area": blank}
    x = np.where(keep, frame[box].astype(np.float64), np.nan)
    return {
        "spot/sum": np.nansum(x),
        "spot/mean": np.nanmean(x),
        "spot/npix": keep.sum(),
        "spot/area": x,
    }


def _pixels(frame, good):
    if frame is None:
        return {"pixels/counts": np.zeros(60, np.int64)}
    return {"pixels/counts": np.histogram(frame[good], 60, (-5.0, 50.0))[0]}


class Rings:
    """I(q) by its definition: sum over the pixels of a bin by the sum of their weights."""

    def __init__(self, spec, good):
        x, y, _ = spec.xyz.reshape(3, -1)
        r = np.hypot(x, y)
        two_theta = np.arctan2(r, DISTANCE_UM)
        q = 4.0 * np.pi / (HC / ENERGY_KEV) * np.sin(two_theta / 2.0)
        keep = good.ravel()
        edges = np.linspace(q[keep].min(), q[keep].max(), BINS + 1)
        # the last bin holds its upper edge
        self.bin = np.minimum(
            ((q - edges[0]) / (edges[-1] - edges[0]) * BINS).astype(int), BINS - 1
        )
        # solid angle, and polarization of an unpolarized beam
        self.keep = keep
        self.weight = np.cos(two_theta) ** 3 * 0.5 * (1.0 + np.cos(two_theta) ** 2)

    def __call__(self, frame):
        if frame is None:
            return {"rings/intensity": np.full(BINS, np.nan)}
        value, at = frame.ravel()[self.keep].astype(np.float64), self.bin[self.keep]
        norm = np.bincount(at, self.weight[self.keep], BINS)
        return {"rings/intensity": np.bincount(at, value, BINS) / norm}
