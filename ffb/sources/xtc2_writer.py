"""Write LCLS-II xtc2 files, and their smalldata, with psana's own ``DgramEdit``.

One :class:`Xtc2Writer` is one stream: one ``-sNNN-`` file, or everything in a file by itself for
a shared-memory server. Detectors are declared first, then come the transitions::

    w = Xtc2Writer("run.xtc2", "mfxx49820", 7)
    timing = w.declare(SPECS["timing"], "timing")
    w.put(Service.CONFIGURE, t0)
    w.put(Service.BEGIN_RUN, t1)
    w.put(Service.L1_ACCEPT, t2, [(timing, timing_record(12345, codes=[40, 140]))])

Several mistakes make psana's C++ abort the process instead of raising; what can be checked is
checked here before it gets that far.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ffb.shot import timestamp_of
from ffb.sources.standins import import_psana
from ffb.sources.xtc2 import XTC, leaves
from ffb.sources.xtc2_specs import SPECS, Service, Spec

#: Bit of the damage word that makes psana show nothing of a dgram.
CORRUPTED = 1 << 3

_FIELD, _DETECTOR = re.compile(r"[A-Za-z0-9_.:]{1,255}"), re.compile(r"[A-Za-z0-9_]{1,255}")
_MAX_RANK, _SMD_ID, _SMD_BYTES = 4, 254, 4096
_HEADERS = 256  # bytes of a record's headers and shapes, at most


@dataclass(eq=False)
class Slot:
    """A declared (detector, alg, segment): where its values go."""

    spec: Spec
    name: str
    segment: int
    uid: str
    config: Mapping[str, Any] | None
    box: Any = None
    smd_box: Any = None


Record = tuple[Slot, Mapping[str, Any]]


class Xtc2Writer:
    """One stream of a run.

    ``node`` must differ between the streams of a run. ``smd`` is the path of the smalldata file
    to be written in step. ``readout`` are the low 24 bits of the environment word (readout
    groups, bit 22 is "keep raw"). ``max_bytes`` bounds a dgram; psana aborts beyond it.
    """

    def __init__(
        self,
        path: str | Path,
        exp: str,
        run: int,
        *,
        node: int = 1,
        smd: str | Path | None = None,
        readout: int = 1,
        max_bytes: int = 1 << 24,
    ) -> None:
        self.exp, self.run, self.node, self.readout = exp, run, node, readout
        self._edit = import_psana("psana.dgramedit")
        self._out = bytearray(max_bytes)
        self._smd_out = bytearray(_SMD_BYTES)
        self._file: BinaryIO = open(path, "wb", buffering=1 << 20)  # noqa: SIM115
        self._smd: BinaryIO | None = open(smd, "wb") if smd else None  # noqa: SIM115
        self._slots: list[Slot] = []
        self._config: Any = None
        self._smd_config: Any = None
        self._smd_info: Any = None
        self._at = 0
        self._run_info = self.declare(SPECS["runinfo"], "runinfo", uid="")

    def declare(
        self,
        spec: Spec,
        name: str,
        segment: int = 0,
        *,
        uid: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Slot:
        """Announce a detector's segment; ``config`` are the values to write into Configure.

        Raises ``ValueError`` for what would make psana abort: a name with other characters than
        letters, digits, ``_`` (and ``.``, ``:`` in fields), a rank above 4, too many segments.
        """
        if self._config is not None:
            raise ValueError(f"{name}: declare every detector before the Configure is written")
        wrong = [f for f in spec.fields if not _FIELD.fullmatch(f)]
        if wrong or not _DETECTOR.fullmatch(name):
            raise ValueError(
                f"{name}: psana takes letters, digits and _ in names, and . and : in field names;"
                f" it does not take {wrong or name!r}"
            )
        if high := [f for f, (_, rank) in spec.fields.items() if rank > _MAX_RANK]:
            raise ValueError(f"{name}: psana takes arrays up to rank {_MAX_RANK}, not {high}")
        if len(self._slots) >= _SMD_ID - 1:
            raise ValueError(f"{name}: a stream holds {_SMD_ID - 1} segments; begin another one")
        slot = Slot(spec, name, segment, f"{name}{segment}" if uid is None else uid, config)
        self._slots.append(slot)
        return slot

    def put(
        self,
        service: Service,
        time: int,
        records: Iterable[Record] = (),
        *,
        damage: int = 0,
        damaged: Mapping[Slot, int] | None = None,
        readout: int | None = None,
    ) -> int:
        """Write one dgram at ``time`` (ns since 1970); returns its size in bytes.

        Every field of a slot must be in its record. A slot without a record is missing from the
        shot. BeginRun carries experiment and run number by itself. ``damage`` is the dgram's own
        word of damage, ``damaged`` those of slots.
        """
        readout = self.readout if readout is None else readout
        stamp = timestamp_of(time)
        if service == Service.CONFIGURE:
            return self._configure(stamp, readout)
        dgram = self._edit.DgramEdit(
            transition_id=int(service),
            ts=stamp,
            config_dgramedit=self._config,
            bufsize=len(self._out),
        )
        whole = list(records)
        if service == Service.BEGIN_RUN:
            whole.insert(0, (self._run_info, {"expt": self.exp, "runnum": self.run}))
        total = sum(_HEADERS + _set(slot, slot.box, values) for slot, values in whole)
        if total > len(self._out):
            raise ValueError(
                f"{service.name} at {time} holds some {total} bytes: "
                f"make the writer with a max_bytes above {len(self._out)}"
            )
        for slot, _ in whole:
            dgram.adddata(slot.box)
        size = self._write(dgram, damage, readout, damaged or {})
        if self._smd is not None:
            self._write_smd(service, stamp, size, readout)
        self._at += size
        return size

    def flush(self) -> None:
        """Let readers see what was written: data first, so that no offset leads nowhere."""
        self._file.flush()
        if self._smd is not None:
            self._smd.flush()

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        if self._smd is not None:
            self._smd.close()

    def _configure(self, stamp: int, readout: int) -> int:
        self._config = self._describe(stamp, "box")
        if self._smd is not None:
            # smalldata has the same Configure with one more detector: where the data are
            self._smd_config = self._describe(stamp, "smd_box", where=True)
            self._smd_config.save(self._out)
            _set_env(self._out, readout)
            self._smd.write(memoryview(self._out)[: self._smd_config.size])
        size = self._write(self._config, 0, readout)
        self._at += size
        return size

    def _describe(self, stamp: int, box: str, *, where: bool = False) -> Any:
        edit = self._edit
        config = edit.DgramEdit(
            transition_id=int(Service.CONFIGURE), ts=stamp, bufsize=len(self._out)
        )
        for i, slot in enumerate(self._slots, 1):
            detector = config.Detector(
                edit.DetectorDef(slot.name, slot.spec.dettype, slot.uid),
                edit.AlgDef(slot.spec.alg, *slot.spec.version),
                dict(slot.spec.fields),
                nodeId=self.node,
                namesId=i,
                segment=slot.segment,
            )
            setattr(slot, box, getattr(detector, slot.spec.alg))
        if where:
            self._smd_info = config.Detector(
                edit.DetectorDef("smdinfo", "offset", ""),
                edit.AlgDef("offsetAlg", 0, 0, 0),
                {"intOffset": (np.uint64, 0), "intDgramSize": (np.uint64, 0)},
                nodeId=self.node,
                namesId=_SMD_ID,
                segment=0,
            ).offsetAlg
        for slot in self._slots:  # data may only follow all names
            if slot.config is not None:
                _set(slot, getattr(slot, box), slot.config)
                config.adddata(getattr(slot, box))
        return config

    def _write(
        self, dgram: Any, damage: int, readout: int, damaged: Mapping[Slot, int] | None = None
    ) -> int:
        dgram.save(self._out)
        # DgramEdit leaves out the payload of a corrupted dgram but keeps its length, cannot set
        # the environment bits nor damage a block: all are patched in what it saved
        struct.pack_into("<H", self._out, 16, damage)
        _set_env(self._out, readout)
        size = int(dgram.size)
        if damaged:
            words = {self.node << 8 | self._slots.index(s) + 1: w for s, w in damaged.items()}
            for at, block, *_ in [*leaves(memoryview(self._out), XTC, size)]:
                struct.pack_into("<H", self._out, at + 4, words.get(block, 0))
        self._file.write(memoryview(self._out)[:size])
        return size

    def _write_smd(self, service: Service, stamp: int, size: int, readout: int) -> None:
        assert self._smd is not None
        if service != Service.L1_ACCEPT:
            self._smd.write(memoryview(self._out)[:size])
            return
        dgram = self._edit.DgramEdit(
            transition_id=int(service),
            ts=stamp,
            config_dgramedit=self._smd_config,
            bufsize=_SMD_BYTES,
        )
        self._smd_info.__dict__.update(intOffset=self._at, intDgramSize=size)
        dgram.adddata(self._smd_info)
        dgram.save(self._smd_out)
        _set_env(self._smd_out, readout)
        self._smd.write(memoryview(self._smd_out)[: dgram.size])


def _set_env(out: bytearray, readout: int) -> None:
    (word,) = struct.unpack_from("<I", out, 8)
    struct.pack_into("<I", out, 8, (word & 0xFF00_0000) | (readout & 0xFF_FFFF))


def _set(slot: Slot, box: Any, values: Mapping[str, Any]) -> int:
    """Put a record into a slot's box and return its bytes.

    Through ``__dict__``, since names may hold ``.`` and ``:``.
    """
    fields, total = slot.spec.fields, 0
    if values.keys() != fields.keys():
        raise ValueError(
            f"{slot.name}.{slot.spec.alg}: a record holds every field and no other; "
            f"missing {sorted(fields.keys() - values.keys())}, "
            f"unknown {sorted(values.keys() - fields.keys())}"
        )
    for name, (kind, rank) in fields.items():
        value = values[name]
        if kind is str:
            total += len(value)
        elif rank:
            value = np.ascontiguousarray(value, kind)
            total += value.nbytes
            if value.ndim != rank:
                raise ValueError(
                    f"{slot.name}.{slot.spec.alg}.{name}: rank {value.ndim} instead of {rank}"
                )
        else:
            value = kind(value).item()
            total += 8
        box.__dict__[name] = value
    return total
