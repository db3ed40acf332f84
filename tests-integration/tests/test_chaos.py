"""The short form of the chaos run, and the faults that must turn it red; ``make chaos`` is the long form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "chaos/run.py"


def chaos(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *options], capture_output=True, text=True, timeout=560, check=False
    )


def test_nothing_is_lost_and_nothing_overlaps_while_workers_die() -> None:
    """SIGKILL of workers and children, SIGSTOP, SCRIPT FLUSH and cut connections, with all pieces in each task."""
    tasks = os.environ.get("CHAOS_TASKS", "2000")
    shares = "fair=16,single=10,limited=1,stumbling=4,chain=6"
    options = f"--tasks {tasks} --seconds 50 --keys 48 --long-every 60 --patience 60 --shares {shares}"
    done = chaos(*options.split())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "options", "found"),
    [
        ("release-without-owner", "--shares single=1 --keys 2 --long-every 2 --freezes-per-minute 12", "overlap"),
        ("limit-by-get-then-set", "--shares limited=1 --tasks 80 --seconds 1", "windows"),
        ("claim-without-lease", "--shares fair=1 --long-every 4 --kills-per-minute 15", "lost"),
        ("no-renewal", "--shares single=1 --keys 3 --long-every 2", "overlap"),
    ],
)
def test_a_planted_fault_turns_it_red(fault: str, options: str, found: str) -> None:
    """The check of the check: each is a mistake that the older packages make."""
    usual = "--tasks 200 --seconds 50 --kills-per-minute 0 --freezes-per-minute 0 --patience 20"
    done = chaos(*usual.split(), *options.split(), "--fault", fault)
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert any(found in line for line in faults), done.stdout + done.stderr
    assert done.returncode == 1
