"""The short form of the chaos run; ``make chaos`` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[1] / "chaos/run.py"


def test_nothing_is_lost_and_nothing_overlaps_while_workers_die() -> None:
    """SIGKILL of workers and children, SCRIPT FLUSH and cut connections, 20 kills a minute."""
    tasks = os.environ.get("CHAOS_TASKS", "800")
    command = [sys.executable, str(RUN), "--tasks", tasks, "--seconds", "40", "--patience", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
