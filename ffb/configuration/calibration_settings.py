"""The tables of ``[calibration]``: constants from files, masks, and the common mode."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ffb.configuration.by_run import ForRuns, Several, for_run, tag
from ffb.configuration.settings import Count, Fraction, List, Table

Over = Literal["rows", "columns", "banks"]


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _both(value: object) -> object:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


#: A number of rows, and one of columns; one number for both will do.
Margins = Annotated[List[Annotated[int, Field(ge=0)]], BeforeValidator(_both)]


class CommonModeConfig(Table):
    """An offset that pixels read out together have in common, found anew in every shot.

    It is found from their ADU above the pedestals, and is taken from them before the gain.
    Masked pixels, and those that have switched to a lower gain, neither count nor change.
    """

    over: Annotated[List[Over], BeforeValidator(_listed)]
    """"rows" of a bank, its "columns", whole "banks", or a list of these, one after the other."""
    by: Literal["median", "mean"] = "median"
    """What pixels have in common: the median of those that count, as with psana, or their mean."""
    bank: List[Count] = ()
    """Rows and columns of a bank; if left out, those of the detector's type where psana knows
    them, else a whole segment."""
    threshold: Annotated[float, Field(gt=0)] | None = None
    """ADU above the pedestal from which a pixel holds photons and does not count."""
    pixels: Count = 11
    """Least number of pixels that count; with fewer there is no correction. psana's is 11."""
    fraction: Fraction = 0.0
    """Least fraction of the pixels in question that count."""
    largest: Annotated[float, Field(gt=0)] | None = None
    """ADU; a correction of this size or more is not made."""
    reference: List[Annotated[int, Field(ge=0)]] = ()
    """First column of a bank that counts, and the first after it that does not: pixels without a
    sensor, such as [264, 300] of an archon. They count even if a mask hides them from reducers."""
    unbonded: str = ""
    """File with a mask (segments, rows, columns) of the only pixels that count, not 0, such as
    those without a sensor. They count even if another mask hides them from reducers."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.over:
            raise ValueError("over: nothing in it; name rows, columns or banks")
        if len(set(self.over)) < len(self.over):
            raise ValueError(f"over: {', '.join(self.over)} names one of them twice")
        if self.bank and len(self.bank) != 2:
            raise ValueError(f"bank: expected [rows, columns], got {list(self.bank)}")
        if self.reference and self.unbonded:
            raise ValueError("reference and unbonded both say which pixels count; leave out one")
        if self.reference:
            first, *rest = self.reference
            if len(rest) != 1 or rest[0] <= first:
                raise ValueError(f"reference: expected [first, last], got {list(self.reference)}")
            if "columns" in self.over:
                raise ValueError(
                    "reference: columns of a bank serve its rows, or the whole of it; leave out"
                    ' "columns" in over'
                )
        return self


class CalibrationConfig(ForRuns):
    """Calibration of one detector: constants from files instead of psana's store, and masks.

    Files are .npy or .npz, shaped (gain ranges, segments, rows, columns); a segment, or a gain
    range, that is the only one needs no axis. Others are texts with a row of pixels a line, those
    of one segment after the other, as psana writes them.
    """

    constants: Literal["store", "none"] = "store"
    """Where constants come from that no file gives; "none" leaves raw ADU, but masks pixels."""
    pedestals: str = ""
    """File with pedestals in ADU."""
    gain: str = ""
    """File with gains in ADU per `unit`."""
    offset: str = ""
    """File with offsets in ADU, added to the pedestals of a Jungfrau."""
    rms: str = ""
    """File with the rms of pixels in the dark in ADU, for thresholds in units of the noise."""
    status: str = ""
    """File with the pixel status, nonzero is bad."""
    geometry: str = ""
    """File with psana's geometry."""
    mask: str = ""
    """File with a mask (segments, rows, columns), 0 is bad, ANDed with all others."""
    pixel_mask: bool = False
    """Whether the mask that the store has for the detector, psana's `calib=True`, is ANDed too."""
    status_bits: Annotated[int, Field(gt=0, lt=1 << 63)] | None = None
    """Bits of the status that make a pixel bad; all of them if left out."""
    status_extra_bits: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """The same of the store's status_extra, psana's `stextra_bits`; 0 leaves it out of account."""
    neighbors: Annotated[int, Field(ge=0, le=20)] = 0
    """How far around a pixel of bad status others are bad, too."""
    neighborhood: Literal["rhombus", "circle", "square"] = "rhombus"
    """Far in steps along rows and columns, in a straight line, or in the larger of the two."""
    edges: Margins = (0, 0)
    """Rows and columns to mask along the edges of every segment: [rows, columns], or one number."""
    center: Margins = (0, 0)
    """The same on either side of where the ASICs of a segment meet."""
    unit: str = "keV"
    """Unit of the calibrated values: that of the file with gains; psana's are in ADU/keV."""
    common_mode: CommonModeConfig | None = None
    """Offset that pixels read out together have in common; psana's default is none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("edges", "center"):
            if len(given := getattr(self, name)) != 2:
                raise ValueError(f"{name}: expected [rows, columns] or a number, got {list(given)}")
        constants = ("pedestals", "gain", "offset", "rms", "status")
        bits = ("status_bits", "status_extra_bits")
        needless = (*constants, "pixel_mask", *bits, "neighbors", "common_mode")
        if self.constants == "none" and (given := [f for f in needless if getattr(self, f)]):
            raise ValueError(f'constants = "none" leaves raw ADU; leave out {", ".join(given)}')
        return self


#: "none", a table, or tables by `runs`.
Calibration = Annotated[
    Annotated[Literal["none"], Tag("<text>")]
    | Annotated[CalibrationConfig, Tag("<table>")]
    | Annotated[Several[CalibrationConfig], Tag("<tables>")],
    Discriminator(tag),
]


def calibration_of_run(
    given: Literal["none"] | CalibrationConfig | tuple[CalibrationConfig, ...] | None, run: int
) -> CalibrationConfig | None:
    """The settings of a detector in a run, ``None`` for its constants as the run has them.

    Raises ``LookupError`` for a run that none of several tables holds for.
    """
    if given is None:
        return None
    return CalibrationConfig(constants="none") if given == "none" else for_run(given, run)
