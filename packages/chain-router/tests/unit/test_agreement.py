"""Who sends agrees where a key goes: whatever the process, the order of registration, the hash seed, the Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import celery_toolkit_core

NAMES = [f"worker{number}" for number in range(7)]

#: 100,000 keys of all kinds, and what is printed of their owners; `owner_of` is defined in front of it.
KEYS = """
import hashlib, json, sys, uuid
def keys():
    for number in range(20_000):
        yield f"customer:{number}"
        yield number - 10_000
        yield str(number).encode()
        yield uuid.UUID(int=number)
        yield (number, "ä", None, {"b": 1.5, "a": [True, number]})
owners = [owner_of(key) for key in keys()]
print(json.dumps([len(owners), hashlib.sha256(" ".join(owners).encode()).hexdigest()]))
"""
PRODUCER = """
import sys
from celery_chain_router import ChainRouter
router = ChainRouter()
for name in sys.argv[1:]: router.register_worker(name)
owner_of = router.get_worker_for_key
"""
#: Needs nothing but core: no site-packages.
BARE = """
import sys
from celery_toolkit_core.ring import HashRing
owner_of = HashRing(sys.argv[1:]).get
"""


def start(python: str, program: str, names: list[str], seed: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, "-c", program + KEYS, *names],
        env={**os.environ, "PYTHONHASHSEED": seed, **environment},
        stdout=subprocess.PIPE,
    )


def answer(process: subprocess.Popen[bytes]) -> list:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


@pytest.fixture(scope="module")
def expected() -> list:
    """What a producer of this Python says, with a hash seed of its own choice."""
    return answer(start(sys.executable, PRODUCER, NAMES, "random"))


def test_producers_with_another_order_and_hash_seed_agree_on_100_000_keys(expected):
    """A router that used ``hash()`` or the order of a set would part them."""
    others = [
        start(sys.executable, PRODUCER, names, seed)
        for names, seed in ((NAMES[::-1], "1"), (NAMES[3:] + NAMES[:3], "4711"))
    ]
    assert [answer(each) for each in others] == [expected] * 2
    assert expected[0] == 100_000


@pytest.fixture
def core_alone(tmp_path) -> str:
    """A folder to import from that holds core and nothing else."""
    found = distribution("celery-toolkit-core")
    source = Path(celery_toolkit_core.__file__).parent
    (tmp_path / source.name).symlink_to(source, target_is_directory=True)
    metadata = tmp_path / f"celery_toolkit_core-{found.version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(found.read_text("METADATA") or "")
    return str(tmp_path)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_other_pythons_agree_on_100_000_keys(version, expected, core_alone):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    process = start(python, BARE, NAMES[::-1], "random", PYTHONPATH=core_alone, PYTHONDONTWRITEBYTECODE="1")
    assert answer(process) == expected


def interpreter(version: str) -> str | None:
    """A Python of this version that really starts: on the PATH, or of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    candidates = [*([on_path] if on_path else []), *map(str, sorted(root.glob(f"versions/{version}.*/bin/python")))]
    check = f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}))"
    return next((each for each in candidates if subprocess.run([each, "-c", check], check=False).returncode == 0), None)
