"""What a beam line has beside the detectors of an experiment: a record of each, by shot.

Some are missing from the first shots of a run, some are dropped or damaged now and then, as
:class:`ffb.testing.truth.RunSpec` says. psana's own interfaces tell a test what to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ffb.sources.xtc2_specs import SPECS
from ffb.testing.truth import RunSpec

#: Specs by detector and interface.
KINDS: Mapping[tuple[str, str], str] = {
    ("xgmd", "raw"): "xgmd",
    ("ebeamh", "raw"): "ebeamh",
    ("MfxDg2BmMon", "raw"): "bmmon",
    ("rix_fim0", "raw"): "wave8",
    ("rix_fim0", "fex"): "wave8_fex",
    ("c_piranha", "ttfex"): "piranha4_ttfex",
    ("c_piranha", "raw"): "piranha4",
    ("tmoopal2", "ttfex"): "opal_ttfex",
    ("tmoopal2", "ttproj"): "opal_ttproj",
    ("alvium_tt", "raw"): "pv",
    ("mono_encoder", "raw"): "encoder",
    ("mono_encoder", "interpolated"): "encoder_interpolated",
    ("stopped_encoder", "raw"): "encoder",
    ("mono_hrencoder", "raw"): "hrencoder",
    ("enc", "raw"): "usdusb",
    ("feespec", "raw"): "feespec",
    ("qadc_ch0", "raw"): "pv",
}

NAMES = tuple(dict.fromkeys(name for name, _ in KINDS))

#: Missing from the first shots.
LATE = ("MfxDg2BmMon", "mono_hrencoder", "tmoopal2")

#: Bits of damage: the event builder did without a contribution; data were late.
DROPPED, TIMED_OUT = 1 << 4, 1 << 6


def dropped(spec: RunSpec, name: str, i: int) -> bool:
    """Whether the event builder did without a detector in shot ``i``."""
    return name == "feespec" and spec.harm > 0 and i % spec.harm == spec.harm - 2


def damage(spec: RunSpec, name: str, i: int) -> int:
    """Word of damage of a detector that is in shot ``i``."""
    if name == "MfxDg2BmMon" and spec.harm and i % spec.harm == spec.harm - 1:
        return TIMED_OUT
    return 1 << 12 if name == "xgmd" and spec.harm and i % spec.harm == 0 else 0  # a user's bit


def record(spec: RunSpec, name: str, alg: str, i: int) -> dict[str, Any] | None:
    """What a detector writes in shot ``i``, ``None`` where it is missing."""
    if (name in LATE and i < spec.late) or dropped(spec, name, i):
        return None
    special = _SPECIAL.get(SPECS[KINDS[name, alg]].dettype)
    if special is not None:
        return special(spec, alg, i)
    out: dict[str, Any] = {}
    for k, (field, (kind, rank)) in enumerate(SPECS[KINDS[name, alg]].fields.items()):
        integer = np.issubdtype(kind, np.integer)
        value = (37 * i + 5 * k) % 100 if integer else 1e-3 * i + k + 0.25
        out[field] = np.arange(16.0) + value if rank else value
    return out


def _encoder(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    between = 10 * (i - i % 10) if alg == "raw" else 10 * i
    return {
        "encoderValue": 4_000_000_000 + between, "frameCount": i, "timing": 7 * i, "scale": 5,
        "scaleDenom": 0 if alg == "raw" and i % 3 == 0 else 1000, "mode": 1, "error": 0,
    }  # fmt: skip


def _position(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    return {"position": 3 * i - 50, "missedTrig_cnt": 0, "error_cnt": i % 2, "latches": i % 8}


def _usb(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    return {"encoder_values": 0.01 * i * np.arange(1.0, 5.0)}


def _spectrum(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    peaks = i % 4
    axis = np.arange(64)
    return {
        "width": 64, "hproj": 100 + 50 * (axis == i % 64), "com": 31.0 + i % 3, "comRaw": 31.5,
        "baseline": 100.0, "integral": 50.0 * i, "nPeaks": peaks, "peakPos": axis[:peaks] + 0.5,
        "peakHeight": axis[:peaks] * 2.0, "FWHM": axis[:peaks] * 0.25,
    }  # fmt: skip


def _six(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    return {"value": [500.0 + i, 0.01 * i, 80.0, 0.25, 0.01, 1.0]}


def _camera(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    if alg == "ttproj":
        return {"proj_sig": np.arange(32.0) + i, "proj_ref": np.arange(32.0)}
    if alg == "raw":
        return {"image": np.arange(64) + i}
    return {
        "ampl": 0.5 + i, "fltpos": 400.0 + i, "fltpos_ps": -0.25 * i, "fltposfwhm": 70.0,
        "amplnxt": 0.0625, "refampl": 2.0,
    }  # fmt: skip


def _digitizer(spec: RunSpec, alg: str, i: int) -> dict[str, Any]:
    if alg == "raw":
        return {f"raw_{c}": spec.wave(i, c, 32) for c in range(8)}
    return {
        **{f"integral_{c}": 1000 * c - i for c in range(8)},
        **{f"base_{c}": 2000 + i % 9 for c in range(8)},
        "itrigCount": i % 65536, "ptrigCount": i, "intensity": 8.0 * i, "posX": 0.5, "posY": -0.5,
    }  # fmt: skip


_SPECIAL: Mapping[str, Callable[[RunSpec, str, int], dict[str, Any]]] = {
    "encoder": _encoder,
    "hrencoder": _position,
    "usdusb": _usb,
    "feespec": _spectrum,
    "pv": _six,
    "opal": _camera,
    "piranha4": _camera,
    "wave8": _digitizer,
}
