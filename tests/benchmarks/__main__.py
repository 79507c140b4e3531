"""Run all benchmarks by turns: ``make benchmark``, or some: ``ARGS="kernels shmem"``."""

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
    chosen = sys.argv[1:] or ALL
    if unknown := set(chosen) - set(ALL):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    failed = []
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.bench_{name}"], check=False)
        failed += [name] if done.returncode else []
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
