"""Stand-ins for what psana imports and our path never uses: Kerberos tickets, MPI and Kafka.

psana imports ``krtc`` (to write calibration constants) and ``mpi4py.MPI`` (in its Jungfrau
utilities, even with ``PS_PARALLEL=none``) without condition. Both need system libraries that a
bare machine lacks. :func:`install` puts an empty module in the place of each that cannot be
imported; one that works is left alone. Where ``krtc`` is real but there is no ticket, psana asks
the name server for a SLAC host on every request for constants, about 0.1 s each. ``kafka``, with
which psana announces runs if asked to, takes a third of the time of psana's import: while psana is
imported there is another one in its place.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Ticket:
    """Stands for ``krtc.KerberosTicket``; refuses to be made."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError(
            "krtc is not installed: constants can be read but not written from here; "
            "install lcls-krtc to write them"
        )


class _Producer:
    """Stands for ``kafka.KafkaProducer``; refuses to be made."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("psana was imported by ffb, without Kafka: psmon_publish does not work")


class _Comm:
    """Stands for ``MPI.COMM_WORLD``: one process, alone."""

    def Get_rank(self) -> int:  # noqa: N802  (the name is MPI's)
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def Barrier(self) -> None:  # noqa: N802
        return None

    barrier = Barrier

    def bcast(self, value: Any, root: int = 0) -> Any:
        return value


def _works(module: str) -> bool:
    """Whether ``module`` can be imported; a half-imported one leaves nothing behind."""
    package = module.partition(".")[0]
    before = set(sys.modules)
    try:
        importlib.import_module(module)
    except (ImportError, RuntimeError):  # the latter is mpi4py without an MPI library
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
        return False
    return True


def install() -> None:
    """Make ``krtc`` and ``mpi4py.MPI`` importable; call before the first import of psana.

    Sets ``PS_PARALLEL=none`` unless the environment says otherwise.
    """
    os.environ.setdefault("PS_PARALLEL", "none")
    if not _works("krtc"):
        krtc = ModuleType("krtc", "Stand-in by ffb.")
        krtc.__dict__["KerberosTicket"] = _Ticket
        sys.modules["krtc"] = krtc
    if not _works("mpi4py.MPI"):
        package, mpi = ModuleType("mpi4py", "Stand-in by ffb."), ModuleType("mpi4py.MPI")
        package.__dict__.update(MPI=mpi, __path__=[])
        mpi.__dict__.update(COMM_WORLD=_Comm(), COMM_NULL=None)
        sys.modules.update({"mpi4py": package, "mpi4py.MPI": mpi})


@contextmanager
def _without_kafka() -> Iterator[None]:
    """Have a stand-in for kafka, which whoever wants it afterwards does not find."""
    kafka = ModuleType("kafka", "Stand-in by ffb.")
    kafka.__dict__["KafkaProducer"] = _Producer
    mine = sys.modules.setdefault("kafka", kafka) is kafka
    try:
        yield
    finally:
        if mine:
            del sys.modules["kafka"]


def import_psana(module: str = "psana") -> Any:
    """Import psana or one of its modules, with the stand-ins in place.

    Raises ``ImportError`` with a sentence on what to do where psana is missing.
    """
    install()
    try:
        with warnings.catch_warnings(), _without_kafka():
            # psana's own affair, and nothing we could change
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "psana":
            raise ImportError(
                f"psana is here but needs the module {e.name!r}: "
                "pip install 'ffb[psana]' brings what it imports"
            ) from e
        raise ImportError(
            f"no {e.name}: activate the facility's psana environment, or run `make venv`, "
            "which installs psana without its dependencies (pip install --no-deps psana)"
        ) from e
