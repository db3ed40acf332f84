"""Our Redis is away when a task is sent: the caller has the error in time, wherever the results are."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager

import pytest
from celery import Celery

from celery_ranch import audit, lru_task
from celery_ranch.application import ranch_of
from celery_toolkit_core.connection import connect
from celery_toolkit_core.errors import RedisUnavailable
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_testkit import frozen

pytestmark = pytest.mark.not_on("cluster", "unix", "tls", "sentinel", "acl", reason="it ends servers of its own")

#: Seconds: 2 of the timeout, the rest for a busy machine. Celery's own tries would take 19 and more.
PROMPT = 6.0


@contextmanager
def gone(server):
    """Nobody listens any more."""
    server.stop()
    yield
    server.start()


@contextmanager
def stopped(server):
    """The kernel takes connections, and nobody answers."""
    with frozen(server.pid):
        yield


@pytest.fixture
def server():
    with LocalServer() as server:
        yield server


@pytest.fixture
def make(redis_url):
    """Applications by where results, broker and backlog are: on the server that goes away, or on the one that stays."""
    with ExitStack() as opened:

        def make(layout, away):
            results, broker, state = (away if place == "away" else redis_url for place in layout.split())
            app = Celery("outages", broker=broker, backend=results, set_as_current=False)
            app.conf.ranch_redis_url = None if layout == "away away away" else state
            opened.callback(app.close)
            opened.callback(lambda: ranch_of(app).backlog.client.close())

            @lru_task(app, shared=False, name="outages.task")
            def task():
                pass

            return task

        yield make


LAYOUTS = pytest.mark.parametrize(
    "layout",
    ["away away away", "away stays away", "stays stays away"],
    ids=["everything", "results and backlog", "backlog alone"],
)


def refused(task):
    begin = time.monotonic()
    with pytest.raises(RedisUnavailable):
        task.lru_delay("a")
    taken = time.monotonic() - begin
    print(f"refused after {taken:.2f} s")
    assert taken < PROMPT


@LAYOUTS
@pytest.mark.parametrize("outage", [gone, stopped])
@pytest.mark.parametrize("before", [0, 2], ids=["first call", "later call"])
def test_a_submit_is_refused_in_time(make, server, layout, outage, before):
    """Celery's result backend, asked first, tries for 19 s, and for ever where the server is frozen."""
    task = make(layout, server.url)
    results = [task.lru_delay("a") for _ in range(before)]
    with outage(server):
        refused(task)
    seen = audit(task.app)
    assert seen["missing"] == 0
    if outage is gone:  # and has lost its data
        assert seen["submitted"] == 0
    else:  # what lay in the server's socket is read when it goes on: refused by timeout means it may have been sent
        assert before <= seen["submitted"] <= before + min(before, 1)
    assert len(results) == before


@LAYOUTS
def test_a_host_that_answers_nothing_is_refused_in_time(make, layout):
    """Packets get lost: the queue of new connections is full, so that the kernel drops the next."""
    with socket.socket() as listening, ExitStack() as filling:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            client = filling.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        refused(make(layout, f"redis://127.0.0.1:{listening.getsockname()[1]}/0"))


@pytest.mark.parametrize("times", [0, 1])
def test_how_often_a_broken_call_is_sent_again_is_a_setting(make, redis_url, tcp_proxy, times):
    proxy = tcp_proxy()
    task = make("stays stays away", proxy.url)
    task.app.conf.ranch_redis_max_retries = times
    task.lru_delay("a")
    proxy.lose_reply("EVALSHA")
    if times:
        task.lru_delay("a")
    else:
        with pytest.raises(RedisUnavailable):
            task.lru_delay("a")
    assert not proxy.fault_pending
    # The server had done it: asked again it has not done it twice, and who was refused may have sent a task.
    assert audit(task.app)["waiting"] == 2


def test_tls_can_be_asked_for_apart_from_the_url(make, redis_url):
    """What listens there speaks none, so that nothing is sent."""
    task = make("stays stays away", redis_url)
    task.app.conf.ranch_redis_use_ssl = True
    refused(task)
    with connect(redis_url) as client:
        assert client.keys("*ranch*") == []
