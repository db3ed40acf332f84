"""Measure the packages: ``python tools/bench/run.py [core ...]``; without a name, everything that has a bench.

Each has one module or folder here with a function ``tables() -> Iterator[Table]``, and runs in a process of its own.
Figures that noise does not change (round trips, bytes) come first, times only as ratios to something measured in the
same run, one next to the other. A target that is missed is marked; the exit code says only whether the bench ran.

``--page docs/comparison.md`` writes all of it into that page instead, with the pictures beside it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
#: Modules of this folder that are no bench.
SHARED = {"run", "measure"}


PAGE = """# Compared

Each piece beside plain Celery and beside the packages that people use for the same end today, on the same machine and
in the same run, those each in an environment of its own. Round trips are counted on the wire. Times are ratios: medians
or minima of calls made in turn. A figure that misses its target is marked as missed. Take them again, in about ten
minutes, with

```console
$ make comparison
```
"""

#: Bench -> its heading on the page, in the page's order.
HEADINGS = {
    "promises": "What is kept",
    "heimdall": "heimdall",
    "ranch": "ranch",
    "chain_router": "chain-router",
    "ring": "The hash ring",
    "core": "core",
}


def lines(name: str, pictures: Path | None) -> Iterator[str]:
    """The output of one bench; its charts as files of the folder `pictures`, else as tables."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] / cores
    versions = f"Python {platform.python_version()}, redis-py {version('redis')}"
    yield f"\n## {HEADINGS.get(name, name)}\n\n{versions}, {cores} cores, load {load:.1f} each"
    for part in importlib.import_module(name).tables():
        yield f"\n{part.drawn(pictures) if pictures else part}"


def main() -> None:
    """Run the benches that are named."""
    found = [*HERE.glob("*.py"), *(path.parent for path in HERE.glob("*/__init__.py"))]
    known = sorted({path.stem for path in found} - SHARED)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="PACKAGE", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--page", type=Path, help="a Markdown file to write; pictures are put beside it")
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no bench for {', '.join(unknown)}; there are {', '.join(known)}")
    if options.page:
        command = [sys.executable, __file__, "--pictures", str(options.page.parent)]
        parts = []
        for name in sorted(names, key=[*HEADINGS, *names].index):
            began = time.monotonic()
            parts.append(subprocess.run([*command, name], check=True, stdout=subprocess.PIPE, text=True).stdout)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            # At once: what one bench has found is not lost with the next.
            options.page.write_text(PAGE + "".join(parts), encoding="utf-8")
    elif len(names) > 1:
        for name in names:
            subprocess.run([sys.executable, __file__, name], check=True)
    else:
        for line in lines(names[0], options.pictures):
            print(line, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
