"""What psana's own decoder makes of a high-speed digitizer, under the names of our fields."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np

from ffb.sources.digitizer import DETTYPE, HEADER, sound

#: psana's decoder parses an event again only if its time is another: it is told a new one always.
_TIMES = count(1)


class Digitizers:
    """Asks psana's class for the digitizers of one run; ``manager`` is psana's of the run."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._made: dict[tuple[str, str], Any] = {}

    def knows(self, detector: str, alg: str) -> bool:
        """Whether a detector is a digitizer that psana has a class for."""
        made = self._manager.det_classes["normal"].get((detector, alg))
        return hasattr(made, "padded") and self._manager.det_info_table[detector][0] == DETTYPE

    def read(self, detector: str, alg: str, blocks: Mapping[int, Any]) -> dict[str, Any]:
        """Everything psana makes of the ``blocks`` of all segments of a shot, by name of the field.

        Nothing of a shot that would make it read beyond its bytes. Where the digitizer looked for
        peaks and found none, psana has nothing; here those are empty lists.
        """
        channels = {n: _channel(b) for n, b in blocks.items()}
        if not sound([(getattr(b, HEADER), channels[n][1]) for n, b in blocks.items()]):
            return {}
        event = SimpleNamespace(
            _det_segments={(detector, alg): dict(blocks)},
            _seconds=next(_TIMES),
            _nanoseconds=0,
        )
        psana, out = self._detector(detector, alg), dict[str, Any]()
        for n, (number, data) in channels.items():
            if not data.size:
                continue
            wave = (psana.waveforms(event) or {}).get(n, {}).get(number)
            padded = (psana.padded(event) or {}).get(n, {}).get(number)
            out |= {f"waveforms.{n}": wave} if wave is not None else {}
            out |= {f"padded.{n}": padded} if padded is not None else {}
            peaks = (psana.peaks(event) or {}).get(n, {}).get(number)
            if peaks is None and int(getattr(blocks[n], HEADER)[0]) >> 21 & 1:
                peaks = [], []
            if peaks is not None:
                out[f"peaks.{n}.start"] = np.array(peaks[0], np.int64)
                out[f"peaks.{n}.length"] = np.array([len(p) for p in peaks[1]], np.int64)
                out[f"peaks.{n}.samples"] = np.concatenate([*peaks[1], np.zeros(0, np.uint16)])
            if hasattr(psana, "fex_status"):
                status, baselines = psana.fex_status(event)[n][number]
                out[f"fex_status.{n}"] = np.ravel(status)[0]
                out |= {f"baselines.{n}": b for b in baselines}
        return out

    def _detector(self, detector: str, alg: str) -> Any:
        key = detector, alg
        if key not in self._made:
            made, name = self._manager.det_classes["normal"][key], f"{detector}:{alg}"
            # psana keeps one object per name for the whole process, whatever another run's is
            made._registry.pop(name, None)
            info = self._manager.configinfo_dict[detector]
            self._made[key] = made(detector, alg, info, {}, None, None)
            made._registry.pop(name, None)
        return self._made[key]


def _channel(block: Any) -> tuple[int, Any]:
    """Number and bytes of the first channel of a segment."""
    name = next(k for k in vars(block) if k.startswith("chan"))
    return int(name.removeprefix("chan")), getattr(block, name)
