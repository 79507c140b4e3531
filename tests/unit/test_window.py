"""A reducer that looks at a rectangle is called for its rows alone."""

from typing import Annotated, NamedTuple

import numpy as np

from ffb import Area, Feature, Tile, tile_reducer
from ffb.reduce import Window
from ffb.reducers.window import window
from tests.unit.passes import detector, member, reduce


class Rectangle(NamedTuple):
    segment: int


class Seen(NamedTuple):
    window: Window


class Rows(NamedTuple):
    numbers: np.ndarray


class Found(NamedTuple):
    first: Annotated[int, Feature("1", "first row that came")]
    rows: Annotated[int, Feature("1", "rows that came")]


@tile_reducer(version=1)
class watcher:  # noqa: N801
    """Which rows it is called for."""

    @staticmethod
    def prepare(params: Rectangle, area: Area) -> Seen:
        return Seen(window(area, params.segment, (2, 7), (0, 3)))

    @staticmethod
    def allocate(_: Seen) -> Rows:
        return Rows(np.zeros(2, np.int64))

    @staticmethod
    def start(_: Seen, state: Rows) -> None:
        state.numbers[:] = 0

    @staticmethod
    def accumulate(tile: Tile, _: Seen, state: Rows) -> None:
        if state.numbers[1] == 0:
            state.numbers[0] = tile.number
        state.numbers[1] += 1

    @staticmethod
    def finish(_: Seen, state: Rows) -> Found:
        return Found(state.numbers[0], state.numbers[1])


def test_a_reducer_is_called_for_the_rows_of_its_window_alone():
    area = detector((3, 9, 5))
    columns = reduce(
        [member("w", watcher, Rectangle(1), area)], area, [np.ones(area.shape, np.float32)]
    )
    assert (columns["w/first"][0], columns["w/rows"][0]) == (9 + 2, 5)
