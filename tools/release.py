"""Release one package: what is due, whether it may go, the files, the upload.

``plan`` compares the disk with the index. ``check`` says why a package may not go. ``build`` makes its two files and
tries the wheel in a clean environment that gets everything else from the index. ``publish`` does all of that and
uploads; with ``--dry-run`` it stops before the upload. The index is the public one unless ``--index`` and ``--upload``
say otherwise; credentials are uv's (``UV_PUBLISH_TOKEN``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from check_tree import Member, check_ranges, members, required
from packaging.requirements import Requirement
from packaging.version import Version
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple
from smoke import CORE, environment, find_uv, prove_core, prove_leaf


class Refused(Exception):
    """The package may not go; one reason a line."""


@dataclass(frozen=True)
class Index:
    """A package index: where it is read and where it takes files.

    Args:
        read: URL of its simple API.
        upload: URL that takes uploads; None is uv's own default.
    """

    read: str = PYPI_SIMPLE_ENDPOINT
    upload: str | None = None

    def versions(self, name: str) -> set[Version]:
        """The versions of a distribution that the index offers; yanked ones count, their names are taken too."""
        with PyPISimple(self.read) as client:
            try:
                page = client.get_project_page(name, timeout=30)
            except NoSuchProjectError:
                return set()
        return {Version(package.version) for package in page.packages if package.version}

    @property
    def options(self) -> tuple[str, ...]:
        """What makes ``uv pip`` look here first; other people's packages still come from its default index."""
        return () if self.read == PYPI_SIMPLE_ENDPOINT else ("--index", self.read)


def find(root: Path, name: str) -> Member:
    """The member of that name, with or without our prefix.

    Raises:
        Refused: There is none.
    """
    published = in_order(root)
    for member in published:
        if name in (member.name, member.folder.name):
            return member
    raise Refused(f"no package {name!r}; there are {', '.join(member.folder.name for member in published)}")


def in_order(root: Path) -> list[Member]:
    """The published members, each after those that it needs."""
    waiting = [member for member in members(root) if member.folder.parent.name == "packages"]
    names = {member.name for member in waiting}
    ordered: list[Member] = []
    while waiting:
        done = {member.name for member in ordered}
        ready = [m for m in waiting if {required(r) for r in m.hard + m.soft} & names - {m.name} <= done]
        ordered += ready
        waiting = [member for member in waiting if member not in ready]
    return ordered


def fragments(member: Member) -> list[str]:
    """The changes that no changelog entry tells yet."""
    return sorted(path.name for path in (member.folder / "changes").iterdir() if path.name != "README.md")


def changelog_reasons(root: Path, member: Member) -> Iterator[str]:
    """What the changelog lacks."""
    folder = member.folder.relative_to(root)
    changelog = (member.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    if waiting := fragments(member):
        yield (
            f"{len(waiting)} changes are in no changelog entry ({', '.join(waiting[:3])}); run "
            f"towncrier build --config {folder}/pyproject.toml --dir {folder} --version {member.version}"
        )
    elif f"\n## {member.version} (" not in changelog:
        yield f"CHANGELOG.md has no entry for {member.version}"


def sibling_reasons(root: Path, member: Member, index: Index) -> Iterator[str]:
    """Which of our other packages has to go out before this one."""
    siblings = {each.name: each for each in in_order(root) if each.name != member.name}
    for requirement in map(Requirement, member.hard + member.soft):
        sibling = siblings.get(requirement.name)
        if sibling is None:
            continue
        offered = index.versions(sibling.name)
        if not any(version in requirement.specifier for version in offered):
            yield f"the index offers no {sibling.name}{requirement.specifier}; publish that first"
        elif Version(sibling.version) not in offered:
            yield f"{sibling.name} {sibling.version} lies here unpublished; publish that first"
        elif fragments(sibling):
            yield f"{sibling.name} has changed since its {sibling.version}; raise its version and publish that first"


def reasons(root: Path, member: Member, index: Index) -> Iterator[str]:
    """Why this package may not go out as it lies on the disk."""
    if Version(member.version) in index.versions(member.name):
        yield f"the index has {member.name} {member.version} already; raise the version in its pyproject.toml"
    yield from changelog_reasons(root, member)
    yield from (f"{place}: {message}" for place, message in check_ranges(root))
    yield from sibling_reasons(root, member, index)
    status = ["git", "-C", str(root), "status", "--porcelain", "--", str(member.folder)]
    if subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip():
        yield f"{member.folder.name} has changes that are not committed"


def check(root: Path, member: Member, index: Index) -> None:
    """Nothing stands against this package.

    Raises:
        Refused: Something does; all reasons are in the text.
    """
    if found := list(dict.fromkeys(reasons(root, member, index))):
        raise Refused("\n".join(found))


def build(member: Member, index: Index, dist: Path) -> list[Path]:
    """The wheel and the source archive, the wheel tried in a clean environment with the rest from the index."""
    uv = find_uv()
    subprocess.run([uv, "build", "--quiet", "--out-dir", str(dist), str(member.folder)], check=True)
    files = sorted(path for path in dist.iterdir() if path.suffix in (".whl", ".gz"))
    wheel = next(path for path in files if path.suffix == ".whl")
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(Path(scratch, "clean"), uv, [wheel], "--refresh-package", CORE, *index.options)
        print(prove_core(python) if member.name == CORE else prove_leaf(python, member.name))
    return files


def upload(files: Sequence[Path], index: Index, *, dry_run: bool) -> None:
    """Give the files to the index; a second run after a broken one sends only what is missing."""
    where = ["--publish-url", index.upload, "--check-url", index.read] if index.upload else []
    dry = ["--dry-run"] if dry_run else []
    command = [find_uv(), "publish", "--trusted-publishing", "never", *where, *dry, *map(str, files)]
    subprocess.run(command, check=True)


def plan(root: Path, index: Index) -> None:
    """Print what the disk has and the index has not, in the order in which it may go."""
    for member in in_order(root):
        offered = index.versions(member.name)
        newest = max(offered, default=None)
        state = "published" if Version(member.version) in offered else "due"
        print(f"{member.name:<34} disk {member.version:<8} index {newest or '-'!s:<8} {state}")
        if state == "due":
            for reason in dict.fromkeys(reasons(root, member, index)):
                print(f"    {reason}")
        elif waiting := fragments(member):
            print(f"    {len(waiting)} changes since; raise the version to release them")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; 1 when the package may not go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["plan", "check", "build", "publish"])
    parser.add_argument("package", nargs="?", help="such as ranch; not for plan")
    parser.add_argument("--index", default=PYPI_SIMPLE_ENDPOINT, help="URL of the simple API to compare with")
    parser.add_argument("--upload", help="URL that takes the files; goes with --index")
    parser.add_argument("--dry-run", action="store_true", help="publish: everything but the upload")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if (options.verb == "plan") is bool(options.package):
        parser.error("plan takes no package" if options.package else f"{options.verb} needs a package")
    if options.verb == "publish" and (options.index != PYPI_SIMPLE_ENDPOINT) is not bool(options.upload):
        parser.error("--index and --upload go together: what is compared is what is written to")
    root = options.root.resolve()
    index = Index(options.index, options.upload)
    try:
        if options.verb == "plan":
            plan(root, index)
            return 0
        member = find(root, options.package)
        check(root, member, index)
        print(f"{member.name} {member.version}: may go")
        if options.verb == "check":
            return 0
        with tempfile.TemporaryDirectory() as scratch:
            files = build(member, index, Path(scratch))
            if options.verb == "publish":
                upload(files, index, dry_run=options.dry_run)
                print(f"now: git tag {member.name}-{member.version} && git push origin {member.name}-{member.version}")
            else:
                kept = root / "dist"
                kept.mkdir(exist_ok=True)
                for path in files:
                    print(path.replace(kept / path.name).relative_to(root))
    except Refused as refusal:
        print(f"refused: {refusal}".replace("\n", "\nrefused: "), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
