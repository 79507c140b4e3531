"""What the DAQ writes: kinds of dgram, detectors' classes and fields, and records of values.

No psana here: psana picks the class of a detector by the strings of a :class:`Spec`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffb.shot import CODE_WORDS

U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64
I16, I32, I64, F64 = np.int16, np.int32, np.int64, np.float64


class Service(IntEnum):
    """What a dgram is: the transitions of the DAQ, and L1Accept, a shot."""

    CONFIGURE = 2
    UNCONFIGURE = 3
    BEGIN_RUN = 4
    END_RUN = 5
    BEGIN_STEP = 6
    END_STEP = 7
    ENABLE = 8
    DISABLE = 9
    SLOW_UPDATE = 10
    L1_ACCEPT = 12


#: Services of a shot; the first is one that also ends a batch of the DAQ.
SHOTS = (11, Service.L1_ACCEPT)


class Spec(NamedTuple):
    """A detector's class as psana knows it, and its fields in order: name to (type, rank)."""

    dettype: str
    alg: str
    version: tuple[int, int, int]
    fields: Mapping[str, tuple[type, int]]


def _spec(dettype: str, alg: str, version: tuple[int, int, int], **fields: Any) -> Spec:
    """Make a :class:`Spec`; a bare type is a scalar, ``(type, rank)`` an array, ``str`` a text."""
    whole = {k: v if isinstance(v, tuple) else (v, int(v is str)) for k, v in fields.items()}
    return Spec(dettype, alg, version, whole)


def _each(names: str | Iterable[str], kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split() if isinstance(names, str) else names, kind)


_TIME_TOOL = _each("ampl fltpos fltpos_ps fltposfwhm amplnxt refampl", F64)
_EBEAM = (
    "ebeamCharge ebeamL3Energy ebeamLTUPosX ebeamLTUPosY ebeamLUTAngX ebeamLTUAngY "
    "ebeamPkCurrBC2 ebeamEnergyBC2 ebeamPkCurrBC1 ebeamEnergyBC1 ebeamUndPosX ebeamUndPosY "
    "ebeamUndAngX ebeamUndAngY ebeamXTCAVAmpl ebeamXTCAVPhase ebeamDumpCharge "
    "ebeamPhotonEnergy ebeamLTU250 ebeamLTU450"
)

_ENCODER = {
    "encoderValue": U32, "frameCount": U16, "timing": U32, "scale": U16, "scaleDenom": U16,
    "mode": U8, "error": U8,
}  # fmt: skip

#: Names, types and versions as the DAQ writes them (psdaq/drp, psdaq/epicsArch).
SPECS: Mapping[str, Spec] = {
    "runinfo": _spec("runinfo", "runinfo", (0, 0, 1), expt=str, runnum=U32),
    "chunkinfo": _spec("chunkinfo", "chunkinfo", (0, 0, 1), filename=str, chunkid=U32),
    "jungfrau": _spec(
        "jungfrau", "raw", (0, 2, 0),
        raw=(U16, 3), frame_cnt=U64, timestamp=U64,
        hotPixelThresh=U16, numHotPixels=U32, maxHotPixels=U32,
    ),
    "jungfrau_v1": _spec("jungfrau", "raw", (0, 1, 0), raw=(U16, 3)),
    "epix10ka": _spec("epix10ka", "raw", (2, 0, 1), raw=(U16, 2), aux=(U16, 2)),
    "epix10ka_config": _spec(
        "epix10ka", "config", (2, 0, 0), asicPixelConfig=(U8, 3), trbit=(U8, 1)
    ),
    "epix100": _spec("epix100", "raw", (2, 0, 1), raw=(U16, 2), aux=(U16, 2)),
    "opal": _spec("opal", "raw", (2, 0, 0), image=(U16, 2)),
    "opal_ttfex": _spec("opal", "ttfex", (2, 1, 1), **_TIME_TOOL),
    "opal_ttproj": _spec("opal", "ttproj", (2, 0, 0), proj_sig=(F64, 1), proj_ref=(F64, 1)),
    "piranha4": _spec("piranha4", "raw", (2, 1, 0), image=(U16, 1)),
    "piranha4_ttfex": _spec("piranha4", "ttfex", (1, 0, 1), **_TIME_TOOL),
    "wave8": _spec("wave8", "raw", (0, 0, 1), **_each((f"raw_{i}" for i in range(8)), (U16, 1))),
    "wave8_fex": _spec(
        "wave8", "fex", (0, 0, 1),
        itrigCount=U16, **_each((f"integral_{i}" for i in range(8)), I32),
        **_each((f"base_{i}" for i in range(8)), U16),
        ptrigCount=U32, intensity=F64, posX=F64, posY=F64,
    ),
    "hsd": _spec("hsd", "raw", (3, 0, 0), eventHeader=(U32, 1), chan00=(U8, 1)),
    # psana turns the dots into levels: config.user.fex.corr.baseline
    "hsd_config": _spec(
        "hsd", "config", (3, 0, 0),
        **{"user.fex.corr.baseline": I32, "user.fex.gate_ns": I32},
        **{"user.fex.ymin": I32, "user.fex.ymax": I32},
    ),
    "timing": _spec(
        "ts", "raw", (2, 1, 0),
        pulseId=U64, timeStamp=U64, fixedRates=(U8, 1), acRates=(U8, 1), timeSlot=U8,
        timeSlotPhase=U16, ebeamPresent=U8, ebeamDestn=U8, ebeamCharge=U16,
        ebeamEnergy=(U16, 1), xWavelength=(U16, 1), dmod5=U16, mpsLimits=(U8, 1),
        mpsPowerClass=(U8, 1), sequenceValues=(U16, 1), inhibitCounts=(U32, 1),
    ),
    "triginfo": _spec("triginfo", "triginfo", (0, 0, 1), data=U32),
    "ebeam": _spec("ebeam", "raw", (2, 0, 0), damageMask=U32, **_each(_EBEAM, F64)),
    "ebeamh": _spec("ebeamh", "raw", (2, 0, 0), damageMask=U32, **_each(_EBEAM, F64)),
    "gasdet": _spec(
        "gasdet", "raw", (1, 0, 0),
        **_each("f11ENRC f12ENRC f21ENRC f22ENRC f63ENRC f64ENRC", F64),
    ),
    "gmd": _spec(
        "gmd", "raw", (2, 1, 0),
        energy=F64, xpos=F64, ypos=F64, avgIntensity=F64, rmsElectronSum=I64,
        electron1BkgNoiseAvg=I16, electron2BkgNoiseAvg=I16,
    ),
    "xgmd": _spec("xgmd", "raw", (2, 0, 0), millijoulesperpulse=F64, RMS_E1=F64),
    "feespec": _spec(
        "feespec", "raw", (1, 0, 0),
        width=U32, hproj=(U32, 1), com=F64, comRaw=F64, baseline=F64, integral=F64, nPeaks=U32,
        peakPos=(F64, 1), peakHeight=(F64, 1), FWHM=(F64, 1),
    ),
    "usdusb": _spec("usdusb", "raw", (1, 0, 0), encoder_values=(F64, 1)),
    "pv": _spec("pv", "raw", (1, 0, 0), value=(F64, 1)),
    "pcav": _spec("pcav", "raw", (2, 0, 0), fitTime1=F64, fitTime2=F64, charge1=F64, charge2=F64),
    "bmmon": _spec(
        "bmmon", "raw", (1, 0, 0),
        totalIntensityJoules=F64, xPositionMeters=F64, yPositionMeters=F64,
        peakAmplitude=(F64, 1), peakTime=(U16, 1),
    ),
    "encoder": _spec("encoder", "raw", (3, 0, 0), **_ENCODER),
    "encoder_interpolated": _spec("encoder", "interpolated", (3, 0, 0), **_ENCODER),
    "hrencoder": _spec(
        "hrencoder", "raw", (0, 1, 0), position=I32, missedTrig_cnt=U8, error_cnt=U8, latches=U8
    ),
}  # fmt: skip


def epics_spec(variables: Mapping[str, type]) -> Spec:
    """Slow-control values by short name; the DAQ puts ``StaleFlags`` first."""
    return _spec("epics", "raw", (2, 0, 0), StaleFlags=(U32, 1), **variables)


def epicsinfo_spec(names: Iterable[str]) -> Spec:
    """Full names of the slow-control values, to be written into Configure."""
    return _spec("epicsinfo", "epicsinfo", (1, 0, 0), keys=str, **_each(names, str))


def scan_spec(motors: Iterable[str]) -> Spec:
    """Values that each BeginStep carries."""
    last = {"step_value": F64, "step_docstring": str}
    return _spec("scan", "raw", (2, 0, 0), **_each(motors, F64), **last)


def timing_record(pulse_id: int, codes: Iterable[int] = (), time: int = 0) -> dict[str, Any]:
    """Say what the timing system writes for a shot with these event codes (0 to 287)."""
    words = np.zeros(CODE_WORDS, U16)
    for code in codes:
        words[code >> 4] |= U16(1 << (code & 15))
    return {
        "pulseId": pulse_id, "timeStamp": time, "fixedRates": np.zeros(10),
        "acRates": np.zeros(6), "timeSlot": 1, "timeSlotPhase": 0, "ebeamPresent": 1,
        "ebeamDestn": 4, "ebeamCharge": 100, "ebeamEnergy": np.zeros(4),
        "xWavelength": np.zeros(2), "dmod5": 0, "mpsLimits": np.zeros(16),
        "mpsPowerClass": np.zeros(16), "sequenceValues": words, "inhibitCounts": np.zeros(8),
    }  # fmt: skip


def hsd_record(
    waveform: ArrayLike | None = None, peaks: Iterable[tuple[int, NDArray[Any]]] | None = None
) -> dict[str, Any]:
    """Say what a digitizer writes: a whole waveform (stream 0), peaks (stream 1), or both.

    ``peaks`` are (start, samples); starts and lengths are multiples of 4, the digitizer's lanes.
    """
    mask, blob = 0, b""
    if waveform is not None:
        samples = np.asarray(waveform, U16)
        mask |= 1
        blob += struct.pack("<IIII", samples.size, 0, 0, 0) + samples.tobytes()
    if peaks is not None:
        mask |= 2
        words: list[int] = []
        at = 0
        for start, samples in peaks:
            words += [0x8000 | (start - at), 0x8000, 0x8000, 0x8000]  # skip count in lane 0
            words += (np.asarray(samples, U16) & 0x7FFF).tolist()
            at = start + len(samples)
        packed = np.array(words, U16)
        blob += struct.pack("<IIII", packed.size, 1 << 24, 0, 0) + packed.tobytes()
    header = np.array([1 << 24 | mask << 20, 0], U32)
    return {"eventHeader": header, "chan00": np.frombuffer(blob, U8)}
