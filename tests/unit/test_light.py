"""One shot's light by itself is the light of its row in a batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ffb.light import light_of, masks_of, stamp
from ffb.settings import CodesConfig, LightConfig
from ffb.shot import CODE_WORDS

CODES = st.lists(st.sampled_from([40, 90, 91, 162, 287]), max_size=3)
LIGHT = st.builds(
    LightConfig,
    xray=st.builds(CodesConfig, on=CODES.map(tuple), off=CODES.map(tuple)),
    laser=st.builds(CodesConfig, on=CODES.map(tuple), off=CODES.map(tuple)),
)


@given(LIGHT, CODES, st.booleans())
def test_one_shot_alone_has_the_light_of_its_row(light, codes, timed):
    words = np.zeros((1, CODE_WORDS), np.uint16)
    for c in codes:
        words[0, c >> 4] |= np.uint16(1 << (c & 15))
    masks = masks_of(light)
    buffer = np.zeros(4 * 64, np.uint8)
    table = np.array([(0, 8), (64, 72), (128, 129), (192, 193)])
    given_ = (np.zeros(1, np.uint64), np.zeros(1, np.uint64), words, np.array([timed]))
    stamp(1, given_, *masks, buffer, table)
    row = tuple(buffer[[128, 192]].view(np.int8).tolist())
    assert light_of(words[0], timed, *masks) == row
