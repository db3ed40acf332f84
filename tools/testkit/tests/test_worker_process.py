"""Real workers: ready when said, ended with the test or its process, and talkative when a test fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from celery_toolkit_testkit import eventually, frozen, is_alive

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_runs_in_the_worker(celery_worker_process, celery_app_module, event_log, pool):
    worker = celery_worker_process("testkit_basic", pool=pool)
    result = celery_app_module("testkit_basic").add.delay(1, 2)
    assert result.get(timeout=30) == 3
    [event] = event_log.wait_for(1, what="add", total=3)
    assert event["pid"] in (worker.child_pids() if pool == "prefork" else [worker.pid])
    assert worker.stop() == 0


def test_two_workers_consume_their_own_queues(celery_worker_process, celery_app_module, event_log):
    red, blue = (
        celery_worker_process("testkit_basic", queues=["red"]),
        celery_worker_process("testkit_basic", queues=["blue"], pool="solo"),
    )
    celery_app_module("testkit_basic").add.apply_async((1, 1), queue="blue")
    [event] = event_log.wait_for(1)
    assert event["pid"] == blue.pid
    assert len(red.child_pids()) == 2


def test_kill_takes_the_pool_along(celery_worker_process, celery_app_module, event_log):
    worker = celery_worker_process("testkit_basic")
    celery_app_module("testkit_basic").sleep.delay(60)
    [event] = event_log.wait_for(1)
    worker.kill()
    assert not is_alive(event["pid"])


def test_a_frozen_worker_runs_nothing_until_it_continues(celery_worker_process, celery_app_module, event_log):
    worker = celery_worker_process("testkit_basic", pool="solo")

    def is_stopped():
        return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    with frozen(worker.pid):
        eventually(is_stopped)
        celery_app_module("testkit_basic").add.delay(1, 1)
        assert is_stopped()
        assert event_log.events() == []
    event_log.wait_for(1)


def test_a_worker_that_cannot_start_says_why(celery_worker_process):
    with pytest.raises(AssertionError, match="no_such_module"):
        celery_worker_process("no_such_module")


OWNER = """
import sys, time
from pathlib import Path
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import WorkerProcess
server = LocalServer()
server.start()
env = {"CELERY_BROKER_URL": server.url}
worker = WorkerProcess("testkit_basic", Path(sys.argv[1]) / "log", path=[sys.argv[2]], env=env)
worker.wait_ready()
print(server.pid, worker.pid, *worker.child_pids(), flush=True)
time.sleep(600)
"""


def test_server_worker_and_pool_die_with_a_killed_parent(tmp_path, request):
    apps = str(request.path.parent / "apps")
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), apps], stdout=subprocess.PIPE) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(is_alive, pids))
        os.kill(owner.pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, pids)))


def test_the_log_of_a_worker_is_in_the_report_of_a_failed_test(pytester, request):
    pytester.copy_example(str(request.path.parent / "apps"))
    pytester.makepyfile(
        """
        def test_fails(celery_worker_process):
            celery_worker_process("testkit_basic", pool="solo")
            raise SystemError("on purpose")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*log of worker w1@test*", "*w1@test ready.*"])
