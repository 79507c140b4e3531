"""Light from event codes: lists and expressions of them, in a batch and of one shot alone."""

from itertools import combinations

import numpy as np
import pytest

from ffb.batch import Batch
from ffb.config import ConfigError, parse
from ffb.configuration.conditions import CodesConfig, LightConfig
from ffb.configuration.light import Stamp
from ffb.schema import CORE, Schema
from ffb.shot import CODE_WORDS, FrameBlock

KNOWN = (40, 90, 91, 162, 287)
SHOTS = [set(c) for k in range(len(KNOWN) + 1) for c in combinations(KNOWN, k)]

#: Settings of x-ray and laser, and what they mean; ``None`` is unknown.
CASES = [
    (
        {"on": (40, 287), "off": (162,)},
        {"on": (90,), "off": (91,)},
        lambda c: 0 if 162 in c else 1 if c & {40, 287} else None,
        lambda c: 0 if 91 in c else 1 if 90 in c else None,
    ),
    (
        {"off": (162,)},
        {"on": "all_codes(90, 40) and not any_code(91, 287)"},
        lambda c: int(162 not in c),
        lambda c: int({90, 40} <= c and not c & {91, 287}),
    ),
    (
        {},
        {"on": "code(90) or not code(40)", "off": "code(91) and code(287)"},
        lambda c: None,
        lambda c: 0 if {91, 287} <= c else 1 if 90 in c or 40 not in c else None,
    ),
]


def block_of(shots):
    """A block with the event codes of ``shots``, and a shot without timing after them."""
    block = FrameBlock({}, len(shots) + 1)
    for row, codes in enumerate(shots):
        block.timestamp[row], block.pulse_id[row], block.timed[row] = 10 + row, 20 + row, True
        for c in codes:
            block.codes[row, c >> 4] |= np.uint16(1 << (c & 15))
    block.codes[-1] = 0xFFFF  # left over from who knows when
    assert block.codes.shape[1] == CODE_WORDS
    return block


@pytest.mark.parametrize(("xray", "laser", "is_xray", "is_laser"), CASES)
def test_light_follows_the_event_codes(xray, laser, is_xray, is_laser):
    light = LightConfig(xray=CodesConfig(**xray), laser=CodesConfig(**laser))
    block, schema = block_of(SHOTS), Schema(CORE)
    batch, n = Batch(schema, block.capacity), block.capacity
    stamp = Stamp(light, schema, block)
    stamp.rows(0, n, batch.buffer)
    for name, means in (("xray", is_xray), ("laser", is_laser)):
        states = [means(c) for c in SHOTS]
        want = [*(-1 if s is None else s for s in states), -1]
        assert batch.columns[f"lightStatus/{name}"].tolist() == want
    rows = zip(batch.columns["lightStatus/xray"], batch.columns["lightStatus/laser"], strict=True)
    assert [stamp.light(row) for row in range(n)] == [*rows]
    assert batch.columns["timestamp"].tolist() == block.timestamp.tolist()
    assert batch.columns["pulse_id"].tolist() == block.pulse_id.tolist()


def test_what_is_no_expression_of_event_codes_is_refused():
    light = {
        "xray": {"on": "code(40) and spot.sum > 1", "off": "code(288)"},
        "laser": {"on": "any_codes(90)", "off": "code("},
    }
    with pytest.raises(ConfigError) as e:
        parse({"source": {"kind": "synthetic"}, "light": light})
    assert [p.partition(": ")[0] for p in e.value.problems] == [
        "light.xray.on", "light.xray.off", "light.laser.on", "light.laser.off",
    ]  # fmt: skip
    said = "\n".join(e.value.problems)
    assert "from event codes and inputs, and spot.sum is neither" in said
    assert "event codes are numbers from 0 to 287" in said
    assert "no function 'any_codes'; did you mean 'any_code'?" in said
