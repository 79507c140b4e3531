"""Where the data of an experiment lie: on the fast-feedback storage, at S3DF, on a laptop.

Templates; ``{hutch}`` and ``{exp}`` are filled in. Environment variables are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Site(NamedTuple):
    """A place: the folder under which small data go, and the one that holds the xtc2 files."""

    scratch: str
    xtc: str


#: By the name that `writer.scratch` may give instead of a path.
SITES = {
    "psffb": Site("/cds/data/drpsrcf/{hutch}/{exp}/scratch", "/cds/data/drpsrcf/{hutch}/{exp}/xtc"),
    "s3df": Site("/sdf/data/lcls/ds/{hutch}/{exp}", "/sdf/data/lcls/ds/{hutch}/{exp}/xtc"),
    "s3df-ffb": Site(
        "/sdf/data/lcls/ds/{hutch}/{exp}", "/sdf/data/lcls/drpsrcf/ffb/{hutch}/{exp}/xtc"
    ),
    "laptop": Site("~/ffb/{hutch}/{exp}", "~/ffb/{hutch}/{exp}/xtc"),
}


def scratch_of(template: str) -> str:
    """The template that ``template`` names, if it is the name of a site, else itself."""
    return SITES[template].scratch if template in SITES else template


def find_xtc(exp: str, hutch: str, run: int) -> Path:
    """Folder with the xtc2 files of ``run``, at the first site that has them.

    Raises ``FileNotFoundError`` that tells where they were looked for.
    """
    folders = [Path(s.xtc.format(exp=exp, hutch=hutch)).expanduser() for s in SITES.values()]
    for folder in folders:
        if any(folder.glob(f"{exp}-r{run:04d}-*.xtc2*")):
            return folder
    raise FileNotFoundError(
        f"no xtc2 files of {exp} run {run} in {', '.join(map(str, folders))}: name their folder"
        " with --dir"
    )
