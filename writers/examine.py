"""Look into HDF5 files that may be damaged, in a process of its own.

Damaged metadata makes libhdf5 crash, or search without end; both then happen to the child, which is
this module run as a program: requests come to its standard input as one msgpack list. Its standard
output gets a nil when it begins, and for each an answer as a msgpack map, in which ``wrong`` says
what is wrong with the file, ``""`` if nothing is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
from numpy.typing import NDArray

from ffb.reading.contents import COMMITTED, COMPLETE, FOLDER, SEGMENTS
from ffb.reading.parts import open_h5
from ffb.writers import redraw
from ffb.writers.h5clear import is_marked
from ffb.writers.journal import CHUNK

#: An examination that says nothing for so long hangs, once it has begun; so long it may take to
#: begin, which on a busy machine is long [s].
PATIENCE_S, START_S = 30.0, 120.0


def segment(
    path: str | os.PathLike[str],
    datasets: Sequence[str],
    lengths: Mapping[str, int],
    chunks: bytes,
    holes: bool,
) -> dict[str, Any]:
    """Request: whether the file finds all committed rows where the journal says they lie.

    With ``holes`` the journal need not tell of every chunk.
    """
    return {
        "what": "segment",
        "path": os.fspath(path),
        "datasets": list(datasets),
        "lengths": dict(lengths),
        "chunks": chunks,
        "holes": holes,
    }


def master(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Request: whether it is ``plain`` and ``complete``, of what run, and with how many rows."""
    return {"what": "master", "path": os.fspath(path)}


def tell(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Request: what a journal would say of these ``segments``."""
    return {"what": "tell", "paths": [os.fspath(path) for path in paths]}


def whole(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Request: whether all that describes the contents of a file can be read; rows are not."""
    return {"what": "whole", "path": os.fspath(path)}


def deadly(path: Path, marked: bool = False) -> list[tuple[str, str]]:
    """Files of the run at ``path`` that nobody should open, and what the library did with them.

    They are so damaged that HDF5 crashes or hangs; what it refuses with an error is none of them.
    With ``marked`` only files are looked at that say somebody writes them, where damage is likely.
    """
    folder = path.with_name(f"{path.stem}{FOLDER}")
    there = [p for p in (path, *sorted(folder.glob("seg*[0-9].h5"))) if p.is_file()]
    there += [p for p in sorted(folder.glob("seg*.live.h5")) if not _closed(p).exists()]
    files = [p for p in there if not marked or is_marked(p)]
    answers = ask([whole(p) for p in files])
    return [(p.name, a["wrong"]) for p, a in zip(files, answers, strict=True) if a.get("deadly")]


def _closed(live: Path) -> Path:
    return live.with_name(live.name.replace(".live.h5", ".h5"))


def ask(requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Answers to all requests; one on which the child dies or hangs has it in ``wrong``."""
    answers: list[Any] = []
    while len(answers) < len(requests):
        answers += _ask(requests[len(answers) :], PATIENCE_S)
    return answers


def _ask(requests: Sequence[Mapping[str, Any]], patience: float) -> list[Any]:
    """Answers of one child, up to the first request that it does not survive."""
    command = [sys.executable, "-m", __name__]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603  our own command line
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(msgpack.packb(list(requests)))
            child.stdin.close()
            answers, hangs = _listen(child, len(requests), patience)
        finally:
            child.kill()
    if len(answers) < len(requests):
        died = f"hung for {patience:g} s" if hangs else f"ended with {_signal(child.returncode)}"
        answers.append({"wrong": f"the HDF5 library {died}", "deadly": True})
    return answers


def _listen(
    child: subprocess.Popen[bytes], expected: int, patience: float
) -> tuple[list[Any], bool]:
    """What the child says, and whether it fell silent before it had said all."""
    assert child.stdout is not None
    said = msgpack.Unpacker(strict_map_key=False)
    answers: list[Any] = []
    begun = False
    while len(answers) < expected:
        wait = patience if begun else max(patience, START_S)
        if not select.select([child.stdout], [], [], wait)[0]:
            return answers, True
        if not (data := os.read(child.stdout.fileno(), 1 << 16)):
            child.wait()
            return answers, False
        said.feed(data)
        begun = True
        answers += (a for a in said if a is not None)
    return answers, False


def _signal(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _segment(request: Mapping[str, Any]) -> dict[str, Any]:
    chunks = np.frombuffer(request["chunks"], CHUNK)
    size = os.stat(request["path"]).st_size
    with h5py.File(request["path"], "r", locking=False) as file:
        for i, name in enumerate(request["datasets"]):
            if name not in file:
                return {"wrong": f"it has no {name}"}
            mine = chunks[chunks["dataset"] == i]
            rows, holes = request["lengths"][name], request["holes"]
            if wrong := _misplaced(file[name], rows, mine, size, holes):
                return {"wrong": f"{name}: {wrong}"}
        file.visititems(lambda name, item: _touch(item, name in request["lengths"]))
    return {"wrong": ""}


def _misplaced(
    dataset: h5py.Dataset, rows: int, chunks: NDArray[np.void], size: int, holes: bool
) -> str:
    """What differs between a dataset and what the journal says of its first ``rows`` rows."""
    if dataset.shape[0] < rows:
        return f"it holds {dataset.shape[0]} of {rows} committed rows"
    per, origin = dataset.chunks[0], (0,) * (dataset.ndim - 1)
    chunks = chunks[chunks["chunk"] < -(-rows // per)]
    if len(chunks) < -(-rows // per) and not holes:
        return "the journal does not tell of all its chunks"
    for _, chunk, address, length, mask in chunks.tolist():
        found = dataset.id.get_chunk_info_by_coord((chunk * per, *origin))
        if (found.byte_offset, found.size, found.filter_mask) != (address, length, mask):
            return f"chunk {chunk} lies elsewhere than committed"
        if address + length > size:
            return f"chunk {chunk} lies beyond the end of the file"
    return ""


def _touch(item: h5py.Dataset | h5py.Group, growing: bool) -> None:
    """Read everything of an object that no journal tells of, which raises if it is damaged."""
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and not growing:
        item[()]


def _master(request: Mapping[str, Any]) -> dict[str, Any]:
    with h5py.File(request["path"], "r", locking=False) as file:
        about = {k: file["ffb"].attrs[k] for k in ("exp", "run", "began")}
        return {
            "wrong": "",
            "plain": SEGMENTS not in file,
            "complete": bool(file[COMPLETE][0]),
            "rows": int(file[COMMITTED][0]),
            "exp": str(about["exp"]),
            "run": int(about["run"]),
            "began": int(about["began"]),
        }


def _whole(request: Mapping[str, Any]) -> dict[str, Any]:
    with open_h5(Path(request["path"])) as file:
        file.visititems(_describe)
    return {"wrong": ""}


def _describe(_: str, item: h5py.Dataset | h5py.Group) -> None:
    """Read everything of an object but its rows."""
    dict(item.attrs)
    if not isinstance(item, h5py.Dataset):
        return
    if item.is_virtual:
        item.virtual_sources()
    elif item.chunks:
        item.id.chunk_iter(lambda _: None)
    else:
        item[()]


def _tell(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"wrong": "", "segments": list(redraw.tell(request["paths"]))}


_ANSWERS = {"segment": _segment, "master": _master, "tell": _tell, "whole": _whole}


def answers(requests: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answer all requests in this process, for better or worse."""
    for request in requests:
        try:
            yield _ANSWERS[request["what"]](request)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as e:
            yield {"wrong": f"{type(e).__name__}: {e}"}


if __name__ == "__main__":
    sys.stdout.buffer.write(msgpack.packb(None))
    sys.stdout.buffer.flush()
    for answer in answers(msgpack.unpackb(sys.stdin.buffer.read())):
        sys.stdout.buffer.write(msgpack.packb(answer))
        sys.stdout.buffer.flush()
