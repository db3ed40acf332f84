"""A real Flower, asked as a browser asks it, shows tasks that wait, go on, are dropped and are turned away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_testkit import eventually


@pytest.fixture
def flower(celery_environment, tmp_path, request):
    """Starts Flower for an application of `apps` and returns what asks it for a page."""
    started = []

    def start(module):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        apps = str(request.path.parent / "apps")
        command = [sys.executable, "-m", "celery", "-A", module, "flower", "--address=127.0.0.1", f"--port={port}"]
        environment = {**os.environ, "PYTHONPATH": apps, "FLOWER_UNAUTHENTICATED_API": "true"}
        with (tmp_path / "flower.log").open("wb") as log:
            started.append(start_bound(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

        def ask(page):
            with suppress(URLError, ConnectionError), urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
                return answer.read().decode()

        eventually(lambda: ask("/healthcheck"), 60.0)
        return ask

    yield start
    for process in started:
        end_bound(process)


def test_each_state_of_ours_is_on_its_pages(flower, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("ruled")
    ask = flower("ruled")
    celery_worker_process("ruled", arguments=["-E"])

    def shown(result, state):
        tasks = json.loads(ask("/api/tasks") or "{}")
        return tasks.get(result.id, {}).get("state") == state and tasks[result.id]

    app.slowly.delay("a")
    event_log.wait_for(1, what="end", task="slowly")
    waiting = app.slowly.delay("b")
    found = eventually(lambda: shown(waiting, "PARKED"))
    assert (found["name"], "b" in found["args"], found["worker"]) == ("slowly", True, "w1@test")
    assert waiting.id in ask("/task/" + waiting.id)
    eventually(lambda: shown(waiting, "SUCCESS"))

    app.dropped.delay("a").get(timeout=60)
    dropped = app.dropped.delay("b")
    eventually(lambda: shown(dropped, "DROPPED"))

    app.late.delay("a", seconds=3.0)
    event_log.wait_for(1, what="begin", task="late")
    duplicate = app.app.send_task("late", ("a",))
    eventually(lambda: shown(duplicate, "DEDUPLICATED"))
    assert 'type="task-parked",worker="w1@test"} 1.0' in ask("/metrics")
