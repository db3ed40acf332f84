"""What a worker says and serves from its start on."""

from __future__ import annotations

import re
import socket
from urllib.request import urlopen

from celery_toolkit_testkit import eventually


def test_a_misspelt_setting_is_warned_of(celery_worker_process, tmp_path):
    (tmp_path / "misspelt.py").write_text("from ruled import app\napp.conf.heimdall_leese = 3\n")
    folder = __file__.rpartition("/")[0] + "/apps"
    worker = celery_worker_process("misspelt", path=[tmp_path, folder])
    worker.wait_for_log("unknown_setting setting=heimdall_leese did_you_mean=heimdall_lease")


def test_a_worker_says_in_which_redis_its_locks_are(celery_worker_process, tmp_path):
    """A worker with another Redis than the producers shares no lock with them, and nothing else shows it."""
    (tmp_path / "told.py").write_text("from ruled import app\napp.conf.heimdall_namespace = 'told'\n")
    folder = __file__.rpartition("/")[0] + "/apps"
    worker = celery_worker_process("told", path=[tmp_path, folder])
    worker.wait_for_log("heimdall_ready redis=")
    assert re.search(r"heimdall_ready redis=\S+:\d+/\d+ namespace=told", worker.log())


BASELESS = """
from celery import Celery, Task
from celery_heimdall import RateLimit, Unique
app = Celery("baseless")
@app.task(heimdall={"unique": True}, name="by_dict")
def by_dict(): pass
@app.task(unique=Unique(), limits=[RateLimit("1/s")], name="typed")
def typed(): pass
@app.task(unique=True, limits=["own"], name="somebody_elses")
def somebody_elses(): pass
"""


def test_options_of_a_task_without_our_base_are_warned_of(celery_worker_process, tmp_path):
    """Celery takes any option of a task in silence: it would be neither unique nor limited."""
    (tmp_path / "baseless.py").write_text(BASELESS)
    worker = celery_worker_process("baseless", path=[tmp_path])
    for task, option in (("by_dict", "heimdall"), ("typed", "unique"), ("typed", "limits")):
        worker.wait_for_log(f"option_without_effect task={task} option={option} needs_base=HeimdallTask")
    assert worker.log().count("option_without_effect") == 3


def test_a_worker_refuses_to_start_beside_the_older_distribution(celery_worker_process, tmp_path):
    """They have the same import name and overwrite each other's files."""
    older = tmp_path / "celery_heimdall-1.0.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-heimdall\nVersion: 1.0.0\n")
    folder = __file__.rpartition("/")[0] + "/apps"
    worker = celery_worker_process("ruled", path=[tmp_path, folder], wait=False)
    worker.wait_for_log("celery-heimdall 1.0.0 is installed beside celery-toolkit-heimdall")
    worker.wait_for_log("pip uninstall")
    eventually(lambda: not worker.is_running)
    assert " ready." not in worker.log()


def test_metrics_are_scraped(celery_app_module, celery_worker_process, event_log, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("METERED_PORT", str(port))
    app = celery_app_module("metered")
    celery_worker_process("metered")
    app.slowly.delay("a")
    event_log.wait_for(1, what="begin")
    app.slowly.delay("b")
    app.slowly.delay("c")

    def scraped():
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return page.read().decode().splitlines()

    eventually(lambda: 'heimdall_parked_total{task="slowly"} 2.0' in scraped())
    assert "heimdall_waiting 2.0" in scraped()
    eventually(lambda: 'heimdall_released_total{outcome="success",task="slowly"} 1.0' in scraped())
    eventually(lambda: 'heimdall_woken_total{task="slowly"} 1.0' in scraped())
