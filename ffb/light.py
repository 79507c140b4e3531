"""Light states from event codes, and what else every row begins with."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ffb.compile import build, kernel
from ffb.settings import CodesConfig, LightConfig
from ffb.shot import CODE_WORDS


def _words(codes: tuple[int, ...]) -> NDArray[np.uint16]:
    """Event codes as the bits that the timing system sets for them."""
    out = np.zeros(CODE_WORDS, np.uint16)
    for c in codes:
        out[c >> 4] |= np.uint16(1 << (c & 15))
    return out


def _rule(config: CodesConfig) -> int:
    """What it means that no code matches."""
    if bool(config.on) == bool(config.off):
        return -1
    return 0 if config.on else 1


def masks_of(light: LightConfig) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
    """Bits of the codes, (lights, off and on, words), and the state without any of them.

    Lights are x-ray and laser, in this order.
    """
    lights = (light.xray, light.laser)
    masks = np.array([[_words(c.off), _words(c.on)] for c in lights])
    return masks, np.array([_rule(c) for c in lights], np.int8)


def light_of(
    codes: NDArray[np.uint16],
    timed: bool,
    masks: NDArray[np.uint16],
    otherwise: NDArray[np.int8],
) -> tuple[int, int]:
    """State of x-ray and laser of one shot with these ``codes`` (words,), as :func:`stamp`."""
    if not timed:
        return -1, -1
    hit: NDArray[np.bool_] = np.any(masks & codes, axis=2)
    xray, laser = np.where(hit[:, 0], 0, np.where(hit[:, 1], 1, otherwise)).tolist()
    return xray, laser


def stamp(
    n: int,
    given: tuple[Any, ...],
    masks: NDArray[np.uint16],
    otherwise: NDArray[np.int8],
    buffer: NDArray[np.uint8],
    table: NDArray[np.int64],
) -> None:
    """Fill the first columns of ``n`` rows in the ``buffer`` of a batch.

    ``given`` are timestamp, pulse id, codes and timed of a block; ``table`` (4, 2) says from where
    to where the columns timestamp, pulse id, x-ray and laser lie. Off wins over on; a shot without
    timing is of unknown light, -1.
    """
    timestamp, pulse_id, codes, timed = given
    out_timestamp = buffer[table[0, 0] : table[0, 1]].view(np.uint64)
    out_pulse_id = buffer[table[1, 0] : table[1, 1]].view(np.uint64)
    for j in range(n):
        out_timestamp[j] = timestamp[j]
        out_pulse_id[j] = pulse_id[j]
    for light in range(2):
        out = buffer[table[2 + light, 0] : table[2 + light, 1]].view(np.int8)
        for j in range(n):
            state = otherwise[light]
            for value in (1, 0):
                for w in range(codes.shape[1]):
                    if codes[j, w] & masks[light, value, w]:
                        state = np.int8(value)
            out[j] = state if timed[j] else np.int8(-1)


def compile_stamp(example: tuple[Any, ...]) -> Any:
    """Compile :func:`stamp` for arguments of the types of ``example``."""
    names = "n, given, masks, otherwise, buffer, table"
    source = f"def stamped({names}):\n    stamp({names})\n"
    return build(source, {"stamp": kernel(stamp)}, tuple(numba.typeof(a) for a in example))
