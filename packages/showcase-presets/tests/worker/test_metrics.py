"""The exporter in a process of its own, beside a real worker, scraped over HTTP."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from celery_showcase_presets import publisher_app
from celery_showcase_presets.dead_letters import dead_letters_of
from celery_toolkit_core.bound_process import end_bound, start_bound
from celery_toolkit_core.deadletters import DeadLetter
from celery_toolkit_testkit import eventually

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def app(celery_environment):
    app = publisher_app(include=["preset_tasks"])
    yield app
    app.close()


def command(*arguments):
    return [sys.executable, "-m", "celery", "-A", "light_worker", "showcase", "metrics", *arguments]


@pytest.fixture(scope="module")
def exporter(redis_server, tmp_path_factory):
    """``celery showcase metrics``, once for all tests; its URL."""
    log = tmp_path_factory.mktemp("exporter") / "log"
    environment = {**os.environ, "CELERY_BROKER_URL": redis_server.url, "CELERY_RESULT_BACKEND": redis_server.url}
    with log.open("wb") as file:
        process = start_bound(
            command("--port", "0"),
            cwd=APPS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    yield eventually(lambda: re.search(r"http://[\d.:]+/metrics", log.read_text()), 60, "the exporter is there")[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    end_bound(process)


@pytest.fixture
def scrape(exporter, redis_url):
    """A function that gives {(name, label values in the order of their names): figure}."""

    def read():
        with urlopen(exporter, timeout=30) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return read


def asked_for():
    """The metrics in whatever `init` writes."""
    shipped = files("celery_showcase_presets") / "manifests"
    texts = [shipped / "prometheus/rules.yml", shipped / "grafana/dashboard.json", shipped / "helm/templates/keda.yaml"]
    return {name for text in texts for name in re.findall(r"\bcelery_\w+", text.read_text())}


def test_queues_with_priorities_and_unacknowledged_workers_and_ends_of_tasks(app, scrape, celery_worker_process):
    for priority in (0, 3, 6, 9):
        app.send_task("light.announce", (priority,), queue="light", priority=priority)
    before = scrape()
    assert before["celery_broker_up",] == 1
    assert before["celery_queue_messages", "light"] == 4
    assert before["celery_queue_messages", "heavy"] == 0
    assert before["celery_queue_unacknowledged", "light"] == 0
    # Their time of sending counts whole seconds.
    eventually(lambda: scrape()["celery_queue_oldest_seconds", "light"] > 1, 30, "they grow old")
    assert before["celery_queue_oldest_seconds", "heavy"] == 0
    if "celery_ranch_tasks" in {name for name, *_ in before}:
        assert before["celery_ranch_tasks", "waiting"] == 0

    # Not quiet: the heartbeat is what says goodbye.
    worker = celery_worker_process("light_worker", name="small", concurrency=1, quiet=False)
    done = ("celery_tasks_total", "succeeded", "light.announce")
    after = eventually(lambda: (seen := scrape()).get(done) == 4 and seen, 60, "four ends are counted")
    assert after["celery_queue_messages", "light"] == 0
    assert after["celery_queue_oldest_seconds", "light"] == 0
    online = after["celery_workers_online",]
    assert after["celery_task_seconds_count", "light.announce"] == 4

    # All that alerts, dashboard and scaler ask for is there, with figures.
    assert asked_for() >= {"celery_queue_oldest_seconds", "celery_task_seconds_bucket", "celery_workers_online"}
    pytest.importorskip("celery_ranch", reason="a panel shows ranch")
    assert asked_for() <= {name for name, *_ in after}

    # One that fails is retried, and until then waits in the worker's hand: Redis keeps it as unacknowledged.
    app.send_task("light.stubborn", (1,), queue="light")
    retried = ("celery_tasks_total", "retried", "light.stubborn")
    eventually(lambda: scrape().get(retried) == 1, 60, "a retry is counted")
    worker.stop()
    eventually(lambda: scrape()["celery_workers_online",] == online - 1, 60, "it has said goodbye")


def test_what_a_worker_has_in_hand_is_counted_by_its_queue(app, scrape, celery_worker_process):
    worker = celery_worker_process("heavy_worker", name="big", concurrency=1)
    app.send_task("heavy.render", (60,), queue="heavy")
    eventually(lambda: scrape()["celery_queue_unacknowledged", "heavy"] == 1, 60, "it runs")
    seen = scrape()
    assert seen["celery_queue_messages", "heavy"] == 0
    assert seen["celery_queue_unacknowledged", "light"] == 0
    worker.kill()


def test_dead_letters_are_counted(app, scrape):
    dead_letters_of(app).put(DeadLetter("1", "t", "failed", b"m"))
    assert scrape()["celery_dead_letters",] == 1


def test_a_broker_that_is_away_is_a_figure_not_an_error(app, scrape, redis_server):
    redis_server.kill()
    assert scrape()["celery_broker_up",] == 0
    redis_server.start()
    eventually(lambda: scrape()["celery_broker_up",] == 1, 60, "it is seen again")


def test_a_taken_port_is_one_line(celery_environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            command("--port", str(taken.getsockname()[1])), cwd=APPS, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "choose another --port" in line
