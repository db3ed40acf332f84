"""Check the shape of the repository: who imports whom, what is declared, which ranges hold, what the lock names.

Run as ``python tools/check_tree.py [ROOT]``. Prints one line for each finding and exits 1 when there is any.
The installer checks none of this inside a workspace: it accepts cycles, and ranges that a member's version breaks.
"""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORE = "celery-toolkit-core"
LEAVES = {"celery-toolkit-heimdall", "celery-toolkit-ranch", "celery-toolkit-chain-router"}
PRESETS = "celery-toolkit-showcase-presets"
TESTKIT = "celery-toolkit-testkit"

#: Which members each member may import; to what is not named here nobody draws an arrow.
ARROWS: Mapping[str, set[str]] = {
    CORE: set(),
    **{leaf: {CORE} for leaf in LEAVES},
    PRESETS: {CORE, *LEAVES},
    TESTKIT: {CORE},
}
#: The arrows that only an extra may draw.
EXTRAS_ONLY: Mapping[str, set[str]] = {PRESETS: LEAVES}
#: The one folder of core that may import celery and what comes with it.
CELERY_FOLDER = "celery"
CELERY_FAMILY = {"celery", "kombu", "billiard", "vine", "amqp", "click"}

TOP_LEVEL = {
    "packages", "tools", "tests-integration", "docs",
    "pyproject.toml", "uv.lock", "Makefile", "README.md", "LICENSE", "CONTRIBUTING.md",
}  # fmt: skip
MOULD = ("README.md", "LICENSE", "CHANGELOG.md", "changes", "tests", "pyproject.toml")

#: Import names that differ from their distribution's name.
DISTRIBUTION_OF = {
    "prometheus_client": "prometheus-client",
    "django_celery_beat": "django-celery-beat",
    "django_celery_results": "django-celery-results",
    "yaml": "pyyaml",
}
#: The public index and the store of its files, as digests: the repository names no registry but in the lock.
PUBLIC_HOSTS = {"3b042a8e", "19664358"}
#: A path that exists on somebody's machine only.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:root|work|home/[a-z]\w*)/[\w.]")


class Finding(NamedTuple):
    """One fault: where, and what is wrong with the remedy."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace, as its files tell."""

    folder: Path

    @cached_property
    def project(self) -> dict[str, Any]:
        """Its pyproject.toml."""
        table: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        return table

    @property
    def name(self) -> str:
        """The distribution's normal name."""
        return normal(self.project["project"]["name"])

    @property
    def version(self) -> str:
        """Its static version."""
        return str(self.project["project"]["version"])

    @property
    def hard(self) -> list[str]:
        """The requirements that every user gets."""
        return list(self.project["project"].get("dependencies", []))

    @property
    def soft(self) -> list[str]:
        """The requirements of its extras."""
        extras = self.project["project"].get("optional-dependencies", {})
        return [requirement for extra in extras.values() for requirement in extra]

    @cached_property
    def package(self) -> Path | None:
        """The folder of its one import package."""
        found = sorted((self.folder / "src").glob("*/__init__.py"))
        return found[0].parent if found else None


class Import(NamedTuple):
    """One imported module and whether the import runs when its own module is imported."""

    line: int
    module: str
    at_load: bool


def normal(name: str) -> str:
    """The form of a distribution's name in which equal names are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirement: str) -> str:
    """The distribution that a requirement names."""
    match = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
    assert match, f"not a requirement: {requirement!r}"
    return normal(match[1])


def members(root: Path) -> list[Member]:
    """The distributions of the workspace, the published ones first."""
    folders = [*sorted((root / "packages").glob("*/pyproject.toml")), root / "tools/testkit/pyproject.toml"]
    return [Member(path.parent) for path in folders if path.exists()]


def imports(path: Path, package: str) -> Iterator[Import]:
    """Every import of one module, relative ones made absolute.

    Args:
        path: The module's file.
        package: The dotted name of the package that holds it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        late = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if late or typing:
            guarded.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, node not in guarded)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}", node not in guarded)


def modules(member: Member) -> Iterator[tuple[str, str, Path]]:
    """The modules of a member: dotted name, dotted name of the holding package, file."""
    if member.package is None:
        return
    for path in sorted(member.package.rglob("*.py")):
        parts = path.relative_to(member.package.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            yield ".".join(parts[:-1]), ".".join(parts[:-1]), path
        else:
            yield ".".join(parts), ".".join(parts[:-1]), path


def check_imports(root: Path) -> Iterator[Finding]:
    """Arrows between members, celery in one folder of core only, and no import that is not declared."""
    all_members = members(root)
    owner = {member.package.name: member.name for member in all_members if member.package}
    for member in all_members:
        declared = {required(r) for r in member.hard + member.soft} | {member.name}
        for _, package, path in modules(member):
            place = path.relative_to(root).as_posix()
            inside = path.relative_to(member.package).parts if member.package else ()
            for line, module, _ in imports(path, package):
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top == "__future__":
                    continue
                where = f"{place}:{line}"
                if top in {"tools", "docs", "tests", "conftest"}:
                    yield Finding(where, f"imports {top}: nothing imports tools, docs or tests")
                    continue
                wanted = owner.get(top) or DISTRIBUTION_OF.get(top, normal(top))
                if top in owner and wanted != member.name and wanted not in ARROWS.get(member.name, set()):
                    yield Finding(where, f"{member.name} must not import {wanted}")
                elif member.name == CORE and top in CELERY_FAMILY and inside[0] != CELERY_FOLDER:
                    yield Finding(where, f"core imports {top} only below its folder {CELERY_FOLDER}/")
                elif wanted not in declared:
                    yield Finding(where, f"imports {top}, but {member.name} does not declare {wanted}")


def check_module_cycles(root: Path) -> Iterator[Finding]:
    """No module of a package needs itself, by way of others, to be imported."""
    for member in members(root):
        names = {name: (package, path) for name, package, path in modules(member)}
        graph: dict[str, set[str]] = {}
        for name, (package, path) in names.items():
            wanted = {i.module for i in imports(path, package) if i.at_load}
            found = {w if w in names else w.rpartition(".")[0] for w in wanted}
            graph[name] = {f for f in found if f in names and f != name and not name.startswith(f + ".")}
        for cycle in cycles(graph):
            yield Finding(member.name, f"modules import each other: {' -> '.join(cycle)}")


def check_ranges(root: Path) -> Iterator[Finding]:
    """Between members: the range is ``>=0.N,<0.N+1`` around the version on disk, hard or soft as the plan says."""
    by_name = {member.name: member for member in members(root)}
    for member in by_name.values():
        place = (member.folder / "pyproject.toml").relative_to(root).as_posix()
        for requirement in member.hard + member.soft:
            wanted = by_name.get(required(requirement))
            if wanted is None or wanted is member:
                continue
            if wanted.name not in ARROWS.get(member.name, set()):
                yield Finding(place, f"must not depend on {wanted.name}")
            elif requirement in member.hard and wanted.name in EXTRAS_ONLY.get(member.name, set()):
                yield Finding(place, f"{wanted.name} belongs into an extra")
            major, minor, *_ = (int(part) for part in re.findall(r"\d+", wanted.version))
            fit = f">={major}.{minor},<{major}.{minor + 1}"
            if fit not in requirement.replace(" ", ""):
                yield Finding(place, f"{requirement!r} does not hold the {wanted.version} on disk; write {fit}")
    graph = {m.name: {required(r) for r in m.hard + m.soft} & (set(by_name) - {m.name}) for m in by_name.values()}
    for cycle in cycles(graph):
        yield Finding("packages", f"distributions depend on each other: {' -> '.join(cycle)}")


def check_lock(root: Path) -> Iterator[Finding]:
    """The lock names the public index and nothing else: no mirror, no local file, no credentials."""
    path = root / "uv.lock"
    if not path.exists():
        yield Finding("uv.lock", "is missing; run make lock")
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for url in re.findall(r'(?:registry|url|git|path) = "([^"]*)"', text):
            parts = urlsplit(url)
            if parts.scheme != "https" or host_digest(url) not in PUBLIC_HOSTS or parts.username or parts.query:
                yield Finding(f"uv.lock:{number}", "names something else than the public index; run make lock")


def check_mould(root: Path) -> Iterator[Finding]:
    """The top level holds what the plan names; every package has the same rooms."""
    for entry in sorted(tracked(root), key=str):
        top = entry.parts[0]
        if top not in TOP_LEVEL and not top.startswith("."):
            yield Finding(entry.as_posix(), "does not belong to the top level")
    for folder in sorted((root / "packages").iterdir()):
        for room in MOULD:
            if not (folder / room).exists():
                yield Finding(f"packages/{folder.name}", f"has no {room}")
        if not list(folder.glob("src/*/py.typed")):
            yield Finding(f"packages/{folder.name}", "has no py.typed")


def check_texts(root: Path) -> Iterator[Finding]:
    """No tracked text holds a path that exists on one machine only, or the host of a registry."""
    for entry in tracked(root):
        path = root / entry
        if entry.name == "uv.lock" or not path.is_file() or path.stat().st_size > 2**20:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, text in enumerate(lines, 1):
            if MACHINE_PATH.search(text):
                yield Finding(f"{entry.as_posix()}:{number}", "names a path of one machine")
            if any(host_digest(url) in PUBLIC_HOSTS for url in re.findall(r"https?://[^\s\"')>]+", text)):
                yield Finding(f"{entry.as_posix()}:{number}", "names the host of a registry")


def host_digest(url: str) -> str:
    """The host of a URL, as `PUBLIC_HOSTS` knows it."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # something in brackets that is no address
        return ""
    return hashlib.blake2b(host.encode(), digest_size=4).hexdigest()


def tracked(root: Path) -> list[Path]:
    """The files that git tracks or would track; every file where there is no git."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    answer = subprocess.run(command, capture_output=True, check=False)
    if answer.returncode == 0:
        return [Path(name) for name in answer.stdout.decode().split("\0") if name]
    return [path.relative_to(root) for path in root.rglob("*") if path.is_file()]


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """One cycle for each knot of the graph, each beginning and ending with the same name (depth-first search)."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
            return
        if node in done:
            return
        for follower in sorted(graph.get(node, ())):
            visit(follower, [*path, node])
        done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return found


CHECKS = (check_imports, check_module_cycles, check_ranges, check_lock, check_mould, check_texts)


def findings(root: Path) -> list[Finding]:
    """All findings of all checks, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(root)]


def main() -> int:
    """Print the findings; 0 when there are none."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    found = findings(root)
    for finding in found:
        print(finding)
    print(f"tree: {len(found)} finding(s) in {len(members(root))} distributions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
