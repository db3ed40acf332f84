"""What a worker gives back is free at once, and nobody waits for the answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery

from celery_heimdall import HeimdallTask, Unique, task_released
from celery_heimdall.calls import Call
from celery_heimdall.claims import Claim
from celery_heimdall.inspection import locks
from celery_heimdall.listening import SOON, Listener, listener
from celery_heimdall.visits import Visit
from celery_toolkit_core.keeper import Keeper
from celery_toolkit_testkit import TcpProxy, eventually

pytestmark = pytest.mark.not_on("cluster", "sentinel", "unix", "tls", "acl", reason="it goes through a proxy")


class Worker:
    """A worker's side of unique tasks, and nothing else of Celery."""

    def __init__(self, url):
        self.app = Celery("releasing", set_as_current=False)
        self.app.conf.heimdall_redis_url = url

        @self.app.task(base=HeimdallTask, shared=False, name="task", unique=Unique(by="value"))
        def task(value):
            """Never runs here."""

        self.app.finalize()
        self.task, self.store, self.keeper = (
            self.app.tasks["task"],
            self.app.tasks["task"].heimdall_store,
            Keeper("ours"),
        )
        self.released = []
        task_released.connect(self._note)

    def _note(self, task_id, outcome, **_):
        self.released.append((task_id, outcome))

    def begin(self, value):
        claim = Claim(self.task, Call(self.task, (value,)), None, f"id-{value}", 0, f"id-{value}/1")
        options = {"queue": "q", "later": False, "join": False, "holder": ""}
        assert claim.enter(woken=False, message=b"", **options)[0] == "run"
        return Visit(claim, self.app, holds=True)

    def end(self, visit):
        visit.ended(SimpleNamespace(error=None), "success")

    def held(self):
        return [lock["holder"] for lock in locks(self.store)]


@pytest.fixture
def proxy(redis_server, redis_url):
    with TcpProxy(redis_server.url) as proxy:
        yield proxy


@pytest.fixture
def worker(proxy):
    worker = Worker(proxy.url)
    worker.end(worker.begin("first"))  # the server meets the scripts
    worker.released.clear()
    listener.start(worker.app, worker.keeper)
    yield worker
    listener.stop(worker.app)
    worker.keeper.stop()
    worker.app.close()


def test_nobody_waits_for_the_answer(worker, proxy):
    visit = worker.begin("a")
    assert worker.held() == ["id-a"]
    with proxy.silent():
        worker.end(visit)
        assert worker.released == []
    worker.keeper.start()
    eventually(lambda: worker.released == [("id-a", "success")])
    assert worker.held() == []


def test_the_answer_comes_with_that_to_the_next_question(worker, proxy):
    visits = [worker.begin(value) for value in range(5)]
    proxy.latency, before = 0.02, proxy.round_trips
    for value, visit in enumerate(visits):
        worker.end(visit)
        worker.begin(f"next-{value}")
    assert proxy.round_trips == before + 5
    assert len(worker.released) == 5
    proxy.latency = 0.0
    assert sorted(worker.held()) == [f"id-next-{value}" for value in range(5)]


def test_what_may_have_been_lost_is_given_back_again(worker, proxy):
    visit = worker.begin("a")
    with proxy.silent():
        worker.end(visit)
        proxy.cut()
    worker.keeper.start()
    eventually(lambda: worker.released == [("id-a", "success")])
    assert worker.held() == []


def test_scripts_that_the_server_has_forgotten_are_sent_again(worker, redis_client):
    visit = worker.begin("a")
    redis_client.script_flush()
    worker.end(visit)
    worker.keeper.start()
    eventually(lambda: worker.released == [("id-a", "success")])
    assert worker.held() == []


def test_who_waits_for_the_key_is_looked_for_soon(worker):
    """The one whose answer says so is not read by a next question here."""
    looked = []
    keeper = SimpleNamespace(every=lambda seconds, work: SimpleNamespace(soon=looked.append))
    own = Listener()
    own.listen()
    assert not own.is_there
    own.start(worker.app, keeper)
    own.listen()
    assert looked == [SOON]


def test_at_the_end_of_a_worker_all_is_heard(worker, proxy):
    visits = [worker.begin(value) for value in range(3)]
    for visit in visits:
        worker.end(visit)
    listener.stop(worker.app)
    assert len(worker.released) == 3
    late = worker.begin("late")
    worker.end(late)
    assert len(worker.released) == 4
    assert worker.held() == []
