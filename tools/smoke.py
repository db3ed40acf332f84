"""Install each wheel alone with core's in a clean environment, import it and run its command.

Run as ``python tools/smoke.py DIST``; DIST holds the wheels of ``make build``. Ends at the first thing that fails.
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
    """Run a command and give its output back; ends the smoke run when it does not end as expected."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if (done.returncode != 0) is not fails:
        print(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        sys.exit(f"smoke: expected {'a failure' if fails else 'success'}, got exit code {done.returncode}")
    return done.stdout


def wheel(dist: Path, distribution: str) -> Path:
    """The one wheel of a distribution."""
    found = sorted(dist.glob(f"{distribution.replace('-', '_')}-*.whl"))
    assert len(found) == 1, f"expected one wheel of {distribution} in {dist}, found {len(found)}"
    return found[0]


def environment(folder: Path, uv: str, wheels: list[str]) -> Path:
    """A clean virtual environment with these wheels; its interpreter."""
    python = folder / "bin/python"
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    run(uv, "pip", "install", "--quiet", "--python", python, *wheels)
    run(uv, "pip", "check", "--quiet", "--python", python)
    return python


def main() -> None:
    """Core alone, then each leaf with core, then all five."""
    dist = Path(sys.argv[1])
    uv = shutil.which("uv") or subprocess.check_output(["sh", "tools/uv.sh"], text=True).strip()
    core = str(wheel(dist, CORE))
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(Path(scratch, "core"), uv, [core])
        run(python, "-c", "import celery_toolkit_core.leases, celery_toolkit_core.limits, celery_toolkit_core.ring")
        run(python, "-c", "import celery", fails=True)
        print(f"{CORE}: alone, without celery")
        for name, (package, command) in LEAVES.items():
            python = environment(Path(scratch, package), uv, [core, str(wheel(dist, name))])
            version = run(python, "-c", f"import {package} as p; print(p.__version__)").strip()
            usage = run(python.with_name("celery"), command, "--help")
            assert "Usage" in usage, usage
            print(f"{name} {version}: import, pip check, celery {command} --help")
        python = environment(Path(scratch, "all"), uv, [core, *(str(wheel(dist, name)) for name in LEAVES)])
        run(python, "-c", "import " + ", ".join(package for package, _ in LEAVES.values()))
        print("all five: one environment")


if __name__ == "__main__":
    main()
