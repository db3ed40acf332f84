"""Draws docs/ranch-waiting.svg: people behind a bulk job, with plain Celery and with ranch, from one run of each.

A real server and a real worker; every bar of the picture is a line of that run's log. Takes about half a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from celery_ranch.pictures import Wait, picture
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import EventLog
from celery_toolkit_testkit.events import PATH_VARIABLE

TARGET = Path(__file__).resolve().parents[2] / "docs" / "ranch-waiting.svg"
BULK, PEOPLE, EACH, SECONDS = 240, ("alice", "bob", "carol"), 4, 0.05

APP = """
import os, time
from celery import Celery
from celery_ranch import lru_task
from celery_toolkit_testkit import log_event
app = Celery("waits", broker=os.environ["WAITS_URL"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, task_acks_late=True)
@lru_task(app)
def work(client, sent, seconds):
    log_event(client=client, sent=sent, began=time.time())
    time.sleep(seconds)
"""

SEND = """
import sys, time
from waits import work
how, bulk, each, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
def send(client):
    args = (client, time.time(), seconds)
    work.delay(*args) if how == "plain" else work.lru_delay(client, *args)
for _ in range(bulk):
    send("bulk import")
for turn in range(each):
    for person in sys.argv[5:]:
        time.sleep(0.25)
        send(person)
"""


def run(how: str) -> list[Wait]:
    """Send the same tasks in one of the two ways; how long each waited."""
    with LocalServer() as server, tempfile.TemporaryDirectory() as folder:
        Path(folder, "waits.py").write_text(APP)
        log = Path(folder, "events.jsonl")
        environment = {**os.environ, "PYTHONPATH": folder, "WAITS_URL": server.url, "C_FORCE_ROOT": "1"}
        environment[PATH_VARIABLE] = str(log)
        command = [sys.executable, "-m", "celery", "-A", "waits", "worker", "-c", "2", "-l", "ERROR"]
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            events = EventLog(log)
            _python("from waits import work; work.delay('first', 0, 0)", environment)
            events.wait_for(1, timeout=60)  # starting is not what is shown
            arguments = [how, str(BULK), str(EACH), str(SECONDS), *PEOPLE]
            _python(SEND, environment, *arguments)
            events.wait_for(1 + BULK + EACH * len(PEOPLE), timeout=120)
        finally:
            worker.terminate()
            worker.wait()
        seen = [each for each in events.events() if each["client"] != "first"]
    begin = min(each["sent"] for each in seen)
    return [Wait(each["client"], each["sent"] - begin, each["began"] - begin) for each in seen]


def _python(code: str, environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)


def main() -> None:
    """Run both, draw them."""
    runs = {"plain Celery": run("plain"), "celery-toolkit-ranch": run("fair")}
    title = f"One worker, two processes, {BULK} bulk tasks of {SECONDS * 1000:.0f} ms: each bar is a task that waits"
    TARGET.write_text(picture(title, runs), encoding="utf-8")
    print(f"drawn {TARGET.name} on {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
