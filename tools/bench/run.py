"""Measure the packages: ``python tools/bench/run.py [core ...]``; without a name, everything that has a bench.

Each has one module in this folder with a function ``tables() -> Iterator[Table]``, and runs in a process of its own.
Figures that noise does not change (round trips, bytes) come first, times only as ratios to something measured in the
same run, one next to the other. A target that is missed is marked; the exit code says only whether the bench ran.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
#: Modules of this folder that are no bench.
SHARED = {"run", "measure"}


def main() -> None:
    """Run the benches that are named."""
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in SHARED)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="PACKAGE", help=f"of {', '.join(known)}; default: all")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no bench for {', '.join(unknown)}; there are {', '.join(known)}")
    if len(names) > 1:
        for name in names:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] / cores
    versions = f"Python {platform.python_version()}, redis-py {version('redis')}"
    print(f"\n## {names[0]}\n\n{versions}, {cores} cores, load {load:.1f} each")
    for table in importlib.import_module(names[0]).tables():
        print(f"\n{table}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
