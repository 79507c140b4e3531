"""Tables of the file that ask for exposures of integrating detectors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ffb.configuration.settings import List, Table
from ffb.integrating.exposures import Timing

Pattern = Annotated[str, Field(min_length=1)]


class IntegratingConfig(Table):
    """A detector with one frame for many shots, and what to gather of the shots that it saw.

    The file has it in `intg/<its name>/`, a row for each frame.
    """

    frames: List[Pattern] = ()
    """Patterns of its own columns, such as "andor/*"; a frame came where any of them holds. Without
    them, all columns that begin with its name and a slash."""
    partners: List[Pattern] = ()
    """Patterns of the columns to gather over its exposures; without them, all numbers of a shot."""
    light: bool = True
    """Whether shots with laser, without, and without x-rays are gathered apart, too."""
    delay_ms: float = 0.0
    """Milliseconds from the last shot of an exposure to the timestamp of its frame."""
    length_ms: Annotated[float, Field(ge=0)] = 0.0
    """Milliseconds that an exposure lasts; 0 where it begins with the frame before."""
    max_s: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """Seconds after which an exposure is cut, so that a detector that stalls holds nothing up."""
    across_steps: bool = False
    """Whether an exposure may go on over the beginning of a step, where it is cut otherwise."""

    @property
    def timing(self) -> Timing:
        """How frames and shots belong together."""
        return Timing(
            round(self.delay_ms * 1e6),
            round(self.length_ms * 1e6),
            round(self.max_s * 1e9),
            self.across_steps,
        )
