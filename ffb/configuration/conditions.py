"""Tables of the file that tell shots apart: lights, derived numbers, filters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from ffb.configuration.settings import List, Table
from ffb.shot import CODE_WORDS

Code = Annotated[int, Field(ge=0, lt=16 * CODE_WORDS)]
Codes = Annotated[
    Annotated[List[Code], Tag("<list>")] | Annotated[str, Field(min_length=1), Tag("<text>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<list>"),
]


class DerivedConfig(Table):
    """A number for every shot, computed from columns and event codes."""

    expr: Annotated[str, Field(min_length=1)]
    """Its expression, such as "spot.sum / gasdet.f11"; NaN where something in it is missing."""
    unit: Annotated[str, Field(min_length=1)]
    """Unit of the number, "1" if it has none."""
    doc: str = ""
    """What it is, in a few words."""


class FilterConfig(Table):
    """A yes or no for every shot; throws nothing away."""

    expr: Annotated[str, Field(min_length=1)]
    """Its condition, such as "tt.ampl > 0.05 and not code(162)"; no where that is unknown."""
    doc: str = ""
    """What passes, in a few words."""


class CodesConfig(Table):
    """What tells one light's state: event codes, or inputs.

    A shot with an `off` code is off. Otherwise one with an `on` code is on. With neither it is
    on where only `off` is given, off where only `on` is, unknown where both are. Each is a list
    of codes, of which one is enough, or an expression of codes and inputs. A shot in which an
    expression is unknown, because something is missing, is of unknown light.
    """

    on: Codes = ()
    """Codes of shots with light, or "all_codes(90, 140) and not code(91)", or
    "timing.destination == 4"."""
    off: Codes = ()
    """Codes of shots without; likewise."""


class LightConfig(Table):
    """What means light."""

    xray: CodesConfig = CodesConfig()
    """The FEL beam."""
    laser: CodesConfig = CodesConfig()
    """The optical laser."""
