"""Files as psana's SmallData and smalldata_tools leave them, made with h5py from known values."""

from pathlib import Path

import h5py
import numpy as np

from tests.unit.small_data_truth import SCHEMA, truth

#: Shots of part k of n are k, k + n, ...: in order within it, and in none over the whole file.
PARTS = 3


def value(name: str, rows: np.ndarray) -> np.ndarray:
    return truth(SCHEMA.by_name[name], rows)


def part(rows: np.ndarray, first_seen: int = 0) -> dict[str, np.ndarray]:
    """What a writer's rank holds of some shots: wide types, lists end to end, missing as it is."""
    present = value("spot/present", rows)
    seen = np.arange(len(rows)) >= first_seen
    npix = np.where(present, value("spot/npix", rows), -99999)
    lengths = rows % 4
    return {
        "timestamp": value("timestamp", rows).astype(np.int64),
        "spot/sum": value("spot/sum", rows),
        "spot/npix": np.where(seen, npix, 0),
        "spot/present": present.astype(np.int64),
        "roi/area": value("roi/area", rows).astype(np.int64),
        "peaks/var_hits/x": np.concatenate([r + 0.25 * np.arange(r % 4) for r in rows]),
        "peaks/var_hits_len": lengths,
    }


def write_file(path: Path, contents: dict[str, object]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            file[name] = values
    return path


def write_master(path: Path, n: int) -> Path:
    """A master over ``PARTS`` parts, as psana joins them, and what it holds itself."""
    parts = [part(np.arange(k, n, PARTS)) for k in range(PARTS)]
    names = [f"{path.stem}_part{k}.h5" for k in range(PARTS)]
    for name, contents in zip(names, parts, strict=True):
        write_file(path.with_name(name), contents)
    with h5py.File(path, "w", libver="latest") as file:
        for key, first in parts[0].items():
            total = sum(len(p[key]) for p in parts)
            layout = h5py.VirtualLayout((total, *first.shape[1:]), first.dtype)
            at = 0
            for name, contents in zip(names, parts, strict=True):
                size = len(contents[key])
                layout[at : at + size] = h5py.VirtualSource(name, key, contents[key].shape)
                at += size
            file.create_virtual_dataset(key, layout, fillvalue=-99999)
        file["Sums/jungfrau_calib"] = np.arange(12.0).reshape(3, 4)
        file["UserDataCfg/roi/ROI_0__ROI_0_bound"] = [[0, 3], [0, 5]]
        file["UserDataCfg/roi/name"] = "ROI_0"
    return path
