"""The tour as its users meet it: one command, in a process of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from celery_toolkit_testkit import eventually
from celery_toolkit_testkit.plugin import missing
from celery_toolkit_testkit.rabbitmq import RabbitNotFound, RabbitServer

for piece in ("celery_heimdall", "celery_ranch", "celery_chain_router"):
    pytest.importorskip(piece, reason="the tour shows all pieces")

PATIENCE = 240


class Tour:
    """A running ``celery-showcase tour``, told apart from all other processes by its folder for temporary files."""

    def __init__(self, folder, *arguments, redis_url=None, sabotage=None):
        folder.mkdir()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.output = folder / "page"
        self.log = folder / "log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY_", "REDIS_"))}
        environment["TMPDIR"] = str(self.temporary)
        if redis_url:
            environment["REDIS_URL"] = redis_url
        if sabotage:
            (folder / "sitecustomize.py").write_text(sabotage)
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-c", "from celery_showcase_presets.cli import main; main()"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "tour", "--no-input", "--output", str(self.output), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def text(self):
        return self.log.read_text()

    def wait(self):
        return self.process.wait(PATIENCE)

    def survivors(self):
        """The processes that were started by the tour and live on."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def leftovers(self):
        """The temporary files of the tour, once none of its processes is left."""
        eventually(lambda: not self.survivors(), 30, "no process of the tour is left")
        return [path.name for path in self.temporary.iterdir()]


@pytest.fixture
def tour(tmp_path):
    tours = []

    def start(*arguments, **options):
        tours.append(Tour(tmp_path / f"tour-{len(tours)}", *arguments, **options))
        return tours[-1]

    yield start
    for each in tours:
        if each.process.poll() is None:
            each.process.send_signal(signal.SIGINT)
            each.process.wait(PATIENCE)


def test_two_tours_at_once_on_one_server_keep_all_promises_and_leave_only_their_pages(tour, redis_url, redis_client):
    both = [tour(redis_url=redis_url), tour(redis_url=redis_url)]
    for each in both:
        assert each.wait() == 0, each.text()
        assert "FAILED" not in each.text()
        assert each.text().count("\n   ok: ") > 20
    for each in both:
        assert each.leftovers() == []
        assert {path.name for path in each.output.iterdir()} == {"report.html", ".gitignore"}
        page = (each.output / "report.html").read_text()
        assert "all kept" in page
        # One file: nothing is loaded from anywhere, and no script runs.
        assert not re.search(r"https?:|<script|<link(?! rel=\"icon\" href=\"data:)|@import|url\(|\bsrc=", page)
        for picture in (
            "Who ran where",
            "How long each client waited",
            "The ring",
            "The limit",
            "What Prometheus read",
        ):
            assert picture in page
    assert redis_client.dbsize() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tour_leaves_no_process_no_file_and_no_key(tour, redis_url, redis_client, number):
    interrupted = tour(redis_url=redis_url)
    eventually(lambda: "\n3. " in interrupted.text(), PATIENCE, "the third chapter has begun")
    interrupted.process.send_signal(number)
    assert interrupted.wait() == 130, interrupted.text()
    assert "Traceback" not in interrupted.text()
    assert interrupted.leftovers() == []
    assert not interrupted.output.exists()
    assert redis_client.dbsize() == 0


def test_a_killed_tour_leaves_no_process(tour):
    killed = tour()
    eventually(lambda: "\n2. " in killed.text(), PATIENCE, "the second chapter has begun")
    killed.process.kill()
    killed.wait()
    eventually(lambda: not killed.survivors(), 30, "no process of the tour is left")


def test_a_dead_server_in_redis_url_is_one_line(tour):
    stopped = tour(redis_url="redis://:secret@127.0.0.1:1/0")
    assert stopped.wait() == 1
    (line,) = stopped.text().splitlines()
    assert "REDIS_URL" in line
    assert "secret" not in line


def test_in_a_terminal_the_tour_waits_for_a_key_before_each_chapter(tmp_path):
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "TMPDIR": str(tmp_path)}
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-c", "from celery_showcase_presets.cli import main; main()", "tour"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "page")], env=environment, stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    shown = ""

    def read_until(text, key=b""):
        nonlocal shown
        deadline = time.monotonic() + PATIENCE
        while text not in shown:
            assert time.monotonic() < deadline, shown
            # Again and again: what is typed before the terminal is in raw mode is thrown away.
            os.write(terminal, key)
            if select.select([terminal], [], [], 0.5)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")

    try:
        read_until("press any key")
        assert "1. Two queues" not in shown
        read_until("1. Two queues", key=b" ")
        read_until("✓")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        os.close(terminal)


def test_choices_that_cannot_be_meant_are_one_line(tour):
    for wrong, told in ((("--only", "uniqe"), "did you mean"), (("--delay", "-1"), "delay"), (("--loop", "0"), "loop")):
        stopped = tour(*wrong)
        assert stopped.wait() == 1
        (line,) = stopped.text().strip().splitlines()
        assert told in line


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_on_rabbitmq_the_tour_has_a_virtual_host_of_its_own_shows_the_page_and_leaves_nothing(tour, redis_url):
    try:
        server = RabbitServer(plugins=["rabbitmq_management"])
    except RabbitNotFound as error:
        missing(str(error))
    with server:
        page = f"http://127.0.0.1:{server.management_port}"
        chapters = ("--only", "queues", "--only", "monitor")
        shown = tour("--rabbitmq", server.url, "--management", page, *chapters, redis_url=redis_url)
        assert shown.wait() == 0, shown.text()
        assert "ok: RabbitMQ's page is there" in shown.text()
        assert "ok: it shows both queues, as quorum queues" in shown.text()
        assert shown.leftovers() == []
        assert server.control("list_vhosts").split() == ["name", "/"]
        assert server.control("list_queues", "-p", "/").split() == []


def test_a_rabbitmq_that_cannot_be_managed_is_one_line_without_its_password(tour, redis_url):
    for url, told in (("amqp://me:secret@127.0.0.1:1//", "management"), ("http://me:secret@127.0.0.1/", "amqp://")):
        stopped = tour("--rabbitmq", url, "--management", "http://127.0.0.1:1", redis_url=redis_url)
        assert stopped.wait() == 1
        (line,) = stopped.text().strip().splitlines()
        assert told in line
        assert "secret" not in line


#: Chapter -> code that runs first in the tour and in each of its workers, and the promise that it breaks.
SABOTAGES = {
    "queues": (
        """
        if role == "light":
            os._exit(3)
        """,
        "the light worker has taken it",
    ),
    "bulk": (
        """
        import celery_showcase_presets.apps as apps, celery_showcase_presets.tasks as tasks
        apps.HeavyRegistry._own = lambda self, task: True
        if role == "heavy":
            tasks.LightTask.pool = "heavy"
        """,
        "each step ran in the pool of its kind",
    ),
    "chain": (
        """
        from celery_showcase_presets import LightTask
        if role in (None, "heavy"):
            LightTask.pool = "heavy"
        import celery_showcase_presets.apps as apps
        apps.HeavyRegistry._own = lambda self, task: True
        """,
        "heavy first, in its pool, then light in the other",
    ),
    "unique": (
        """
        from celery_heimdall import HeimdallTask
        HeimdallTask.apply_async = lambda self, *args, **kw: super(HeimdallTask, self).apply_async(*args, **kw)
        """,
        "ten clicks gave one task id",
    ),
    "limit": (
        """
        import dataclasses
        import celery_heimdall.task as task
        parse = task.parse
        task.parse = lambda *args: dataclasses.replace(parse(*args), limits=())
        """,
        "never more than 5 in a second, over all processes",
    ),
    "fair": (
        """
        from celery_ranch import RanchTask
        RanchTask.lru_delay = lambda self, key, *args, **kwargs: self.delay(*args, **kwargs)
        """,
        "with ranch nobody waited for more than 6 bulk tasks",
    ),
    "route": (
        """
        import random
        from celery_chain_router import ChainRouter
        ChainRouter.__call__ = lambda self, *args, **options: {"queue": random.choice(sorted(self.worker_positions))}
        """,
        "each customer has one worker",
    ),
    "together": (
        """
        import random
        from celery_chain_router import ChainRouter
        ChainRouter.__call__ = lambda self, *args, **options: {"queue": random.choice(sorted(self.worker_positions))}
        """,
        "chain-router: each customer has one worker",
    ),
    "monitor": (
        """
        from celery_showcase_presets.metrics import TaskEvents
        count = TaskEvents._on_event
        TaskEvents._on_event = lambda self, told: (count(self, told), count(self, told))
        """,
        "Prometheus was told of each of them, and that no queue holds anything",
    ),
}


@pytest.mark.parametrize("chapter", SABOTAGES)
def test_a_sabotaged_chapter_ends_the_tour_with_an_error(tour, chapter):
    code, promise = SABOTAGES[chapter]
    head = 'import os\nrole = os.environ.get("SHOWCASE_TOUR_ROLE")\n'
    failed = tour("--only", chapter, sabotage=head + "\n".join(line[8:] for line in code.splitlines()))
    assert failed.wait() == 1, failed.text()
    assert f"FAILED: {promise}" in failed.text()
    assert failed.leftovers() == []
    assert f'<li class="broken">{promise}' in (failed.output / "report.html").read_text()


def test_every_chapter_is_sabotaged_once():
    from celery_showcase_presets.tour.chapters import CHAPTERS

    assert set(SABOTAGES) == {chapter.name for chapter in CHAPTERS}
