"""The persistent file: always whole, nothing lost, clear errors."""

from __future__ import annotations

import json
import os
import pickle
import select
import subprocess
import sys
from pathlib import Path

import pytest

from celery_chain_router import ChainRouter, WorkerFileError
from celery_chain_router.worker_file import WorkerFile

REGISTER = (
    "import sys\n"
    "from celery_chain_router import ChainRouter\n"
    "print('ready', flush=True)\n"
    "for n, line in enumerate(sys.stdin):\n"
    "    ChainRouter(persistent_file=sys.argv[1]).register_worker(f'{sys.argv[2]}-{n}')\n"
    "    print(n, flush=True)\n"
)


def test_a_fresh_router_reads_what_another_has_registered(tmp_path):
    path = tmp_path / "workers.json"
    ChainRouter(persistent_file=path).register_worker("worker1")
    first = ChainRouter(persistent_file=str(path))
    first.register_worker("worker2", weight=2)
    second = ChainRouter(persistent_file=path)
    assert second.ring == first.ring
    assert set(json.loads(path.read_text())) == {"worker1", "worker2"}
    second.unregister_worker("worker1")
    assert set(ChainRouter(persistent_file=path).worker_positions) == {"worker2"}


def test_the_home_folder_is_expanded_and_no_file_comes_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ChainRouter().register_worker("worker1")
    router = ChainRouter(persistent_file="~/.workers.json")
    assert list(tmp_path.iterdir()) == []
    assert router.persistent_file == str(tmp_path / ".workers.json")
    router.register_worker("worker1")
    assert (tmp_path / ".workers.json").is_file()


def test_reset_removes_a_file_that_is_not_json(tmp_path):
    path = tmp_path / "workers.json"
    path.write_bytes(b"\x00 not json")
    assert ChainRouter(persistent_file=path, reset_persistent=True).worker_positions == {}
    assert not path.exists()
    ChainRouter(persistent_file=path, reset_persistent=True)


def test_a_file_of_celery_chain_router_is_read(tmp_path):
    path = tmp_path / "workers.json"
    path.write_text('{"worker1": [1518588470, 4132136459], "worker2": [350524312, 7]}')
    assert set(ChainRouter(persistent_file=path).worker_positions) == {"worker1", "worker2"}


@pytest.mark.parametrize(
    "content",
    ['{"worker1": {"weight"', "[]", "7", "", "\xff", '{"a{b": {}}', '{"w": {"weight": 0}}', '{"w": {"weight": "x"}}'],
)
def test_a_file_with_anything_else_is_an_error_not_an_empty_ring(tmp_path, content):
    path = tmp_path / "workers.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(WorkerFileError, match="reset_persistent=True") as caught:
        ChainRouter(persistent_file=path)
    assert caught.value.path == str(path)
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    assert path.read_text(encoding="latin-1") == content


def test_a_directory_is_an_error_at_construction(tmp_path):
    with pytest.raises(WorkerFileError, match="directory"):
        ChainRouter(persistent_file=tmp_path)
    with pytest.raises(WorkerFileError):
        ChainRouter(persistent_file=tmp_path, reset_persistent=True)
    assert tmp_path.is_dir()


def test_a_folder_that_is_not_there_is_an_error_when_writing(tmp_path):
    router = ChainRouter(persistent_file=tmp_path / "no" / "workers.json")
    with pytest.raises(WorkerFileError, match="No such file"):
        router.register_worker("worker1")
    assert router.worker_positions == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(tmp_path):
    path = tmp_path / "workers.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(WorkerFileError, match="Permission"):
        ChainRouter(persistent_file=path)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A real limit on the size of files stands for the full disk: the write itself fails."""
    path = tmp_path / "workers.json"
    ChainRouter(persistent_file=path).register_worker("worker1")
    before = path.read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from celery_chain_router import ChainRouter, WorkerFileError\n"
        "router = ChainRouter(persistent_file=sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: router.register_worker('worker2')\n"
        "except WorkerFileError: print('refused', list(router.worker_positions))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().strip() == "refused ['worker1']"
    assert path.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"workers.json", "workers.json.lock"}


def test_eight_processes_register_at_once_ten_times_and_none_is_lost(tmp_path):
    """All eight begin at one signal, and register a worker in each round; the file is read while they write."""
    path = tmp_path / "workers.json"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, str(path), f"p{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    looks = 0
    for number in range(10):
        for process in processes:
            process.stdin.write(b"\n")
            process.stdin.flush()
        done = []
        for process in processes:
            while not select.select([process.stdout], [], [], 0)[0]:
                WorkerFile(path).read()  # raises if it ever sees half a file
                looks += 1
            done.append(process.stdout.readline())
        assert done == [b"%d\n" % number] * 8
        assert set(WorkerFile(path).read()) == {f"p{each}-{n}" for each in range(8) for n in range(number + 1)}
    assert looks > 10
    for process in processes:
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdout.close()


def test_the_mode_of_the_file_stays(tmp_path):
    path = tmp_path / "workers.json"
    path.write_text("{}")
    path.chmod(0o600)
    ChainRouter(persistent_file=path).register_worker("worker1")
    assert Path(path).stat().st_mode & 0o777 == 0o600
