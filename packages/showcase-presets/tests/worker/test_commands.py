"""Workers, beat and Flower from the command line, and the Makefile that calls them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from unittest.mock import ANY

import pytest

from celery_showcase_presets import publisher_app
from celery_showcase_presets.pools import run_worker
from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_testkit import eventually

PATIENCE = 90
APPS = Path(__file__).parent / "apps"
MAKEFILE = files("celery_showcase_presets") / "showcase.mk"
TARGETS = "queues clear_queues status heavy_workers light_workers beat beat_bg beat_stop beat_status flower_heavy"


@pytest.fixture
def app(celery_environment):
    app = publisher_app()
    yield app
    app.close()


@pytest.fixture
def background(tmp_path):
    """Starts processes that die with this test, and gives the file of what they write."""
    started = []

    def start(command, **environment):
        log = tmp_path / f"process-{len(started)}.log"
        with log.open("wb") as file:
            process = start_bound(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(APPS), "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, log

    yield start
    for process in started:
        end_bound(process, patience=30.0)


def celery(*arguments, module="publisher"):
    return [sys.executable, "-m", "celery", "-A", module, *arguments]


def make(*arguments):
    """The make command line of a project that includes the Makefile of the package."""
    settings = {
        "CELERY": f"{sys.executable} -m celery",
        "PUBLISHER": "publisher",
        "HEAVY": "heavy_worker",
        "LIGHT": "light_worker",
        "WORKER_OPTIONS": "-l INFO -c 1",
    }
    return ["make", "-f", str(MAKEFILE), *(f"{name}={value}" for name, value in settings.items()), *arguments]


def test_the_makefile_has_the_targets_and_each_calls_a_command(tmp_path):
    command = make("-n", "--no-print-directory", *TARGETS.split())
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = told.stdout.splitlines()
    assert len(lines) == len(TARGETS.split())
    assert all(" showcase " in line for line in lines)
    assert "--port 5001" in lines[-1]


@pytest.fixture
def run_make(tmp_path):
    def run(*arguments, fails=False):
        environment = {**os.environ, "PYTHONPATH": str(APPS)}
        done = subprocess.run(make(*arguments), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_make_starts_beat_in_the_background_and_ends_it(celery_environment, run_make, tmp_path):
    assert "beat runs as process" in run_make("beat_bg")
    assert "has ended" in run_make("beat_stop")
    assert "beat: Starting" in (tmp_path / "celerybeat.log").read_text()


@pytest.mark.long
def test_every_target_of_the_makefile_does_what_it_says(app, run_make, background):
    app.send_task("heavy.render", (0,), queue="heavy")
    assert "heavy 1 0" in " ".join(run_make("queues").split())
    assert "1 removed" in run_make("clear_queues")
    for target, queue in (("heavy_workers", "heavy.render"), ("light_workers", "light.announce")):
        _, log = background(make(target))
        eventually(lambda log=log: "ready." in log.read_text(), PATIENCE)
        assert app.send_task(queue, (0,), queue=queue.partition(".")[0]).get(timeout=PATIENCE) in (0, [0, ANY])
    assert "heavy@" in run_make("status")
    assert "does not run" in run_make("beat_status", fails=True)
    assert "beat runs as process" in run_make("beat_bg")
    assert "beat runs as process" in run_make("beat_status")
    assert "beat runs already, as process" in run_make("beat_bg", fails=True)
    assert "has ended" in run_make("beat_stop")
    assert "does not run" in run_make("beat_stop")
    _, log = background(make("beat"))
    eventually(lambda: "beat: Starting" in log.read_text(), PATIENCE)


def test_a_periodic_task_without_a_route_is_consumed(celery_worker_process, event_log, background):
    celery_worker_process("light_worker", concurrency=1)
    background(celery("showcase", "beat", "start", module="ticking"))
    event_log.wait_for(2, PATIENCE, what="tick")


def test_a_beat_that_was_killed_is_no_obstacle_to_the_next(celery_environment, tmp_path, background):
    pidfile = tmp_path / "celerybeat.pid"
    first, _ = background(celery("showcase", "beat", "start"))
    eventually(lambda: pidfile.exists() and int(pidfile.read_text() or 0) == first.pid, PATIENCE)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second, _ = background(celery("showcase", "beat", "start"))
    eventually(lambda: pidfile.exists() and int(pidfile.read_text() or 0) == second.pid, PATIENCE)


def test_a_number_that_went_to_a_stranger_is_no_beat(showcase, tmp_path):
    (tmp_path / "pid").write_text("1")
    assert "does not run" in showcase("beat", "status", "--pidfile", tmp_path / "pid", code=1).stdout
    assert "does not run" in showcase("beat", "stop", "--pidfile", tmp_path / "pid").stdout


def test_an_application_of_all_tasks_becomes_a_worker_of_one_pool(app, monkeypatch):
    calls = []
    monkeypatch.setattr(app, "worker_main", calls.append)
    run_worker(app, "light", "small@here", ["-c", "3"])
    assert calls == [["worker", "-n", "small@here", "-Q", "light", "-c", "3"]]
    assert app.conf.worker_prefetch_multiplier == 4
    assert app.conf.worker_max_tasks_per_child == 1000


def test_a_second_worker_of_the_same_name_and_one_of_the_wrong_pool_are_refused(showcase, celery_worker_process):
    celery_worker_process("light_worker", name="small", concurrency=1)
    told = showcase("workers", "light", "--name", "small@test", module="light_worker", code=1).stderr
    assert told == "Error: a worker small@test is at work already; give another one --name\n"
    told = showcase("workers", "heavy", module="light_worker", code=1).stderr
    assert told.startswith("Error: this application runs light tasks only; give the heavy application")
    assert "medium" in showcase("workers", "medium", code=2).stderr


def test_flower_says_in_one_sentence_that_its_port_is_taken(showcase):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = showcase("flower", "--port", port, code=1).stderr
    assert told.startswith(f"Error: port {port} of 127.0.0.1 cannot be had")
    assert len(told.splitlines()) == 1


def test_flower_serves_its_page(celery_environment, background):
    pytest.importorskip("flower")
    from urllib.request import urlopen

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, log = background(celery("showcase", "flower", "--port", str(port)), FLOWER_UNAUTHENTICATED_API="true")

    def page():
        try:
            return urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5).status == 200
        except OSError:
            return False

    eventually(page, PATIENCE, message=log.read_text())


def test_without_an_application_a_command_says_so():
    done = subprocess.run([sys.executable, "-m", "celery", "showcase", "doctor"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: no app given, use -A\n"
