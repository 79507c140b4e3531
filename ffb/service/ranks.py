"""Which of several processes this is that a launcher started together: mpirun, mpiexec or srun.

Their environment tells; no MPI library is needed, and none is initialised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Rank(NamedTuple):
    """Process ``number`` of ``of``, from 0; ``near`` says that all of them are on this machine.

    ``launch`` is the same for all processes of one launch and of no other, as far as the launcher
    tells; ``""`` where it does not.
    """

    number: int = 0
    of: int = 1
    near: bool = True
    launch: str = ""


class _Launcher(NamedTuple):
    """The variables of a launcher: rank, processes, processes on this machine, its launches."""

    rank: str
    size: str
    here: str
    launch: tuple[str, ...]


#: In this order: under Slurm, mpirun's own variables stand beside those of the allocation. Slurm's
#: count for processes that srun started alone; a batch script has a rank and a size, too.
_LAUNCHERS = (
    _Launcher(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    ),
    _Launcher("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", ("PMI_JOBID", "HYDRA_JOBID")),
    _Launcher("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
)


def rank_of(environment: Mapping[str, str]) -> Rank:
    """Find our rank in the environment that a launcher has made; alone where there is none.

    Raises ``ValueError`` where the variables of a launcher contradict each other.
    """
    for known in _LAUNCHERS:
        if known.rank in environment and known.size in environment:
            return _rank(known, environment)
    return Rank()


def _rank(known: _Launcher, environment: Mapping[str, str]) -> Rank:
    index, of = environment[known.rank], environment[known.size]
    if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise ValueError(
            f"{known.rank}={index} and {known.size}={of}: not a rank of that many; start it with"
            " mpirun, mpiexec or srun, or alone without these variables"
        )
    if known.here:
        near = environment.get(known.here, "") == of
    else:
        near = environment.get("SLURM_STEP_NUM_NODES", "") == "1"
    launch = ".".join(environment[k] for k in known.launch if k in environment)
    return Rank(int(index), int(of), near or of == "1", launch)
