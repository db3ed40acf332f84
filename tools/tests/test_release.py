"""The release tool on a copy of the packages, against an index of our own on loopback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_toolkit_testkit import eventually

ROOT = Path(__file__).parents[2]
LEAF = "celery-toolkit-heimdall"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Core and one leaf as they are on the disk, committed, with their changelog entries written."""
    root = tmp_path / "repository"
    left_out = shutil.ignore_patterns("tests", "__pycache__")
    for name in ("core", "heimdall"):
        shutil.copytree(ROOT / "packages" / name, root / "packages" / name, ignore=left_out)
    git(root, "init", "-q", "-b", "main")
    for name in ("core", "heimdall"):
        write_changelog(root, name)
    return root


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "state")


def write_changelog(root: Path, name: str) -> None:
    """What a maintainer does before a release."""
    folder = root / "packages" / name
    version = "0.1.0"
    command = ["towncrier", "build", "--config", f"{folder}/pyproject.toml", "--dir", str(folder), "--version", version]
    commit(root)
    subprocess.run([sys.executable, "-m", *command, "--yes"], check=True, capture_output=True, cwd=root)
    commit(root)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """URL of an empty package index."""
    store = tmp_path / "index"
    store.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "pypiserver",
        "run",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
        "-P",
        ".",
        "-a",
        ".",
        "--disable-fallback",
        str(store),
    ]
    with (tmp_path / "index.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-W", "ignore", "-m", *command, str(store)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(url), message="the index answers")
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def release(root: Path, index: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    upload = ["--upload", f"{index}/"] if arguments[0] == "publish" else []
    command = [
        sys.executable,
        "tools/release.py",
        *arguments,
        "--index",
        f"{index}/simple/",
        *upload,
        "--root",
        str(root),
    ]
    credentials = {"UV_PUBLISH_USERNAME": "anybody", "UV_PUBLISH_PASSWORD": "canary-password"}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | credentials
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def on_index(index: str, name: str) -> list[str]:
    """The files that the index offers of a distribution."""
    try:
        with urllib.request.urlopen(f"{index}/simple/{name}/", timeout=5) as response:
            return sorted(set(re.findall(r">([^<>]+(?:\.whl|\.tar\.gz))<", response.read().decode())))
    except urllib.error.HTTPError:
        return []


def test_core_goes_first_then_the_leaf_that_a_user_can_install(repository: Path, index: str) -> None:
    early = release(repository, index, "check", "heimdall")
    assert early.returncode == 1
    assert "publish that first" in early.stderr

    rehearsal = release(repository, index, "publish", "core", "--dry-run")
    assert rehearsal.returncode == 0, rehearsal.stderr
    assert on_index(index, "celery-toolkit-core") == []

    first = release(repository, index, "publish", "core")
    assert first.returncode == 0, first.stderr
    assert on_index(index, "celery-toolkit-core") == [
        "celery_toolkit_core-0.1.0-py3-none-any.whl",
        "celery_toolkit_core-0.1.0.tar.gz",
    ]

    second = release(repository, index, "publish", "core")
    assert second.returncode == 1
    assert "already" in second.stderr

    leaf = release(repository, index, "publish", LEAF)
    assert leaf.returncode == 0, leaf.stderr
    assert "celery heimdall --help" in leaf.stdout
    assert len(on_index(index, LEAF)) == 2
    everything = "".join(done.stdout + done.stderr for done in (early, rehearsal, first, second, leaf))
    assert "canary-password" not in everything

    plan = release(repository, index, "plan")
    assert [line.split()[-1] for line in plan.stdout.splitlines()] == ["published", "published"]


def test_a_wheel_that_fails_in_a_clean_environment_is_not_uploaded(repository: Path, index: str) -> None:
    source = repository / "packages/core/src/celery_toolkit_core/leases.py"
    source.write_text("import celery\n" + source.read_text())
    commit(repository)

    refused = release(repository, index, "publish", "core")

    assert refused.returncode != 0
    assert on_index(index, "celery-toolkit-core") == []


def test_each_thing_that_stands_against_a_release_is_named(repository: Path, index: str) -> None:
    core = repository / "packages/core"
    (core / "changes/9.fixed.md").write_text("Something.\n")
    project = core / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"', 1))

    refused = release(repository, index, "check", "core")

    assert refused.returncode == 1
    assert "1 changes are in no changelog entry (9.fixed.md)" in refused.stderr
    assert "does not hold the 0.2.0 on disk" in refused.stderr
    assert "not committed" in refused.stderr

    (core / "changes/9.fixed.md").unlink()
    commit(repository)
    assert "CHANGELOG.md has no entry for 0.2.0" in release(repository, index, "check", "core").stderr


def test_an_unknown_package_is_named_with_those_that_there_are(repository: Path, index: str) -> None:
    refused = release(repository, index, "check", "hemdall")
    assert refused.returncode == 1
    assert "no package 'hemdall'; there are core, heimdall" in refused.stderr
