"""One planted fault of each kind, and the tree without them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "check_tree.py"
spec = importlib.util.spec_from_file_location("check_tree", TOOL)
assert spec
assert spec.loader
check_tree = importlib.util.module_from_spec(spec)
sys.modules["check_tree"] = check_tree
spec.loader.exec_module(check_tree)

MEMBERS = {
    "packages/core": (
        "celery-toolkit-core",
        "celery_toolkit_core",
        ["redis>=5"],
        {"celery": ["celery>=5", "kombu>=5"]},
    ),
    "packages/heimdall": ("celery-toolkit-heimdall", "celery_heimdall", ["celery-toolkit-core[celery]>=0.1,<0.2"], {}),
    "packages/ranch": ("celery-toolkit-ranch", "celery_ranch", ["celery-toolkit-core>=0.1,<0.2"], {}),
    "packages/showcase-presets": (
        "celery-toolkit-showcase-presets",
        "celery_showcase_presets",
        ["celery-toolkit-core>=0.1,<0.2"],
        {"ranch": ["celery-toolkit-ranch>=0.1,<0.2"]},
    ),
}
# Put together here so that this file names no registry itself.
INDEX = "https://" + ".".join(["pypi", "org"]) + "/simple"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository without a fault."""
    for folder, (name, package, hard, extras) in MEMBERS.items():
        source = tmp_path / folder / "src" / package
        source.mkdir(parents=True)
        (source / "__init__.py").write_text("")
        (source / "py.typed").write_text("")
        for room in ("tests", "changes"):
            (tmp_path / folder / room).mkdir()
        for text in ("README.md", "LICENSE", "CHANGELOG.md"):
            (tmp_path / folder / text).write_text("")
        lines = ["[project]", f'name = "{name}"', 'version = "0.1.3"', f"dependencies = {hard}"]
        lines += ["[project.optional-dependencies]", *(f"{extra} = {wanted}" for extra, wanted in extras.items())]
        (tmp_path / folder / "pyproject.toml").write_text("\n".join(lines))
    (tmp_path / "uv.lock").write_text(f'source = {{ registry = "{INDEX}" }}\n')
    return tmp_path


def write(tree: Path, path: str, text: str) -> None:
    """Put a file into a member's import package."""
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def messages(tree: Path) -> list[str]:
    """The findings as text."""
    return [str(finding) for finding in check_tree.findings(tree)]


def test_a_sound_tree_has_no_finding(tree: Path) -> None:
    write(tree, "packages/core/src/celery_toolkit_core/celery/worker.py", "import celery\nimport kombu\n")
    write(tree, "packages/ranch/src/celery_ranch/task.py", "import json\nfrom celery_toolkit_core import keys\n")
    assert messages(tree) == []


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("packages/core/src/celery_toolkit_core/a.py", "import celery", "core imports celery only below"),
        ("packages/core/src/celery_toolkit_core/a.py", "def f():\n    from celery_ranch import x", "must not import"),
        ("packages/ranch/src/celery_ranch/a.py", "import celery_heimdall", "must not import celery-toolkit-heimdall"),
        ("packages/ranch/src/celery_ranch/a.py", "import rich", "does not declare rich"),
        ("packages/ranch/src/celery_ranch/a.py", "import yaml", "does not declare pyyaml"),
        ("packages/ranch/src/celery_ranch/a.py", "from tools import bench", "nothing imports tools"),
    ],
)
def test_a_wrong_import_is_found(tree: Path, path: str, text: str, said: str) -> None:
    write(tree, path, text)
    assert any(said in message and message.startswith(path) for message in messages(tree))


def test_modules_that_import_each_other_are_found(tree: Path) -> None:
    write(tree, "packages/ranch/src/celery_ranch/a.py", "from .b import x")
    write(tree, "packages/ranch/src/celery_ranch/b.py", "from . import a")
    assert any("celery_ranch.a -> celery_ranch.b -> celery_ranch.a" in message for message in messages(tree))


def test_imports_for_types_or_inside_functions_make_no_cycle(tree: Path) -> None:
    write(tree, "packages/ranch/src/celery_ranch/a.py", "def f():\n    from .b import x")
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import f"
    write(tree, "packages/ranch/src/celery_ranch/b.py", late)
    assert messages(tree) == []


@pytest.mark.parametrize(
    ("folder", "old", "new", "said"),
    [
        ("ranch", ">=0.1,<0.2", ">=0.2,<0.3", "does not hold the 0.1.3 on disk; write >=0.1,<0.2"),
        ("ranch", ">=0.1,<0.2", ">=0.1", "does not hold"),
        (
            "ranch",
            "'celery-toolkit-core",
            "'celery-toolkit-heimdall>=0.1,<0.2', 'celery-toolkit-core",
            "must not depend",
        ),
        (
            "showcase-presets",
            "'celery-toolkit-core",
            "'celery-toolkit-ranch>=0.1,<0.2', 'celery-toolkit-core",
            "an extra",
        ),
    ],
)
def test_a_wrong_range_or_dependency_is_found(tree: Path, folder: str, old: str, new: str, said: str) -> None:
    path = tree / "packages" / folder / "pyproject.toml"
    path.write_text(path.read_text().replace(old, new))
    assert any(said in message for message in messages(tree))


def test_distributions_that_depend_on_each_other_are_found(tree: Path) -> None:
    path = tree / "packages/core/pyproject.toml"
    path.write_text(path.read_text().replace("'redis>=5'", "'redis>=5', 'celery-toolkit-ranch>=0.1,<0.2'"))
    assert any("depend on each other: celery-toolkit-core ->" in message for message in messages(tree))


@pytest.mark.parametrize(
    "line",
    [
        'source = { registry = "https://mirror.example/simple" }',
        'source = { registry = "../wheels" }',
        f'source = {{ registry = "{INDEX.replace("https://", "https://user:secret@")}" }}',
        f'source = {{ registry = "{INDEX.replace("https", "http")}" }}',
    ],
)
def test_a_lock_that_names_anything_but_the_public_index_is_found(tree: Path, line: str) -> None:
    (tree / "uv.lock").write_text(line + "\n")
    found = messages(tree)
    assert found == ["uv.lock:1: names something else than the public index; run make lock"]
    assert "secret" not in "".join(found)


def test_a_missing_lock_is_found(tree: Path) -> None:
    (tree / "uv.lock").unlink()
    assert messages(tree) == ["uv.lock: is missing; run make lock"]


def test_a_stranger_at_the_top_level_and_a_missing_room_are_found(tree: Path) -> None:
    (tree / "notes.txt").write_text("")
    (tree / "packages/ranch/CHANGELOG.md").unlink()
    (tree / "packages/ranch/src/celery_ranch/py.typed").unlink()
    assert messages(tree) == [
        "notes.txt: does not belong to the top level",
        "packages/ranch: has no CHANGELOG.md",
        "packages/ranch: has no py.typed",
    ]


def test_a_path_of_one_machine_is_found(tree: Path) -> None:
    (tree / "README.md").write_text("see /" + "root/thing\n")
    assert messages(tree) == ["README.md:1: names a path of one machine"]


def test_the_host_of_a_registry_is_found(tree: Path) -> None:
    (tree / "README.md").write_text(f"see [the package]({INDEX}/thing) and [ours](https://example.org/x)\n")
    assert messages(tree) == ["README.md:1: names the host of a registry"]
