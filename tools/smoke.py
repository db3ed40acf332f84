"""Install each wheel alone with core's in a clean environment, import it and run its command.

Run as ``python tools/smoke.py DIST``; DIST holds the wheels of ``make build``. Ends at the first thing that fails.
``tools/release.py`` proves the one wheel that it publishes by the same functions, with the rest from the index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: Import package of each distribution, and the ``celery`` subcommand that it brings.
LEAVES = {
    "celery-toolkit-heimdall": ("celery_heimdall", "heimdall"),
    "celery-toolkit-ranch": ("celery_ranch", "ranch"),
    "celery-toolkit-chain-router": ("celery_chain_router", "chain-router"),
    "celery-toolkit-showcase-presets": ("celery_showcase_presets", "showcase"),
}
CORE = "celery-toolkit-core"


def run(*command: str | Path, fails: bool = False) -> str:
    """Run a command and give its output back; ends the program when it does not end as expected."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if (done.returncode != 0) is not fails:
        print(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        sys.exit(f"smoke: expected {'a failure' if fails else 'success'}, got exit code {done.returncode}")
    return done.stdout


def find_uv() -> str:
    """The path of a uv that works."""
    return shutil.which("uv") or subprocess.check_output(["sh", "tools/uv.sh"], text=True).strip()


def wheel(dist: Path, distribution: str) -> Path:
    """The one wheel of a distribution."""
    found = sorted(dist.glob(f"{distribution.replace('-', '_')}-*.whl"))
    assert len(found) == 1, f"expected one wheel of {distribution} in {dist}, found {len(found)}"
    return found[0]


def environment(folder: Path, uv: str, wheels: list[Path], *options: str) -> Path:
    """A clean virtual environment with these wheels; its interpreter."""
    python = folder / "bin/python"
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    run(uv, "pip", "install", "--quiet", "--python", python, *options, *wheels)
    run(uv, "pip", "check", "--quiet", "--python", python)
    return python


def prove_core(python: Path) -> str:
    """Core works without celery; what was tried, in words."""
    run(python, "-c", "import celery_toolkit_core.leases, celery_toolkit_core.limits, celery_toolkit_core.ring")
    run(python, "-c", "import celery", fails=True)
    return f"{CORE}: alone, without celery"


def prove_leaf(python: Path, name: str) -> str:
    """A leaf is imported and its command runs; what was tried, in words."""
    package, command = LEAVES[name]
    version = run(python, "-c", f"import {package} as p; print(p.__version__)").strip()
    usage = run(python.with_name("celery"), command, "--help")
    assert "Usage" in usage, usage
    return f"{name} {version}: import, pip check, celery {command} --help"


def main() -> None:
    """Core alone, then each leaf with core, then all five."""
    dist = Path(sys.argv[1])
    uv = find_uv()
    core = wheel(dist, CORE)
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as scratch:
        print(prove_core(environment(Path(scratch, "core"), uv, [core])))
        for name in LEAVES:
            python = environment(Path(scratch, name), uv, [core, wheel(dist, name)])
            print(prove_leaf(python, name))
        python = environment(Path(scratch, "all"), uv, [core, *(wheel(dist, name) for name in LEAVES)])
        run(python, "-c", "import " + ", ".join(package for package, _ in LEAVES.values()))
        print("all five in one environment:", "; ".join(prove_leaf(python, name) for name in LEAVES))


if __name__ == "__main__":
    main()
