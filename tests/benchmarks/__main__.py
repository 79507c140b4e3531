"""Run all benchmarks by turns: ``make benchmark``, or some: ``ARGS="kernels shmem"``."""

import argparse
import subprocess
import sys

ALL = (
    "kernels",
    "fused",
    "calibration",
    "waveforms",
    "droplets",
    "photons",
    "scattering",
    "timing",
    "reducers",
    "framework",
    "detectors",
    "digitizers",
    "shmem",
    "stream",
    "wire",
    "codec",
    "aggregate",
    "exposures",
    "page",
    "latency",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(ALL)}; all if left out")
    chosen = parser.parse_args().names or ALL
    if unknown := set(chosen) - set(ALL):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    failed = []
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.bench_{name}"], check=False)
        failed += [name] if done.returncode else []
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
