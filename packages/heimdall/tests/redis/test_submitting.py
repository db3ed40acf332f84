"""What happens at ``delay()``, with a real server and no worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha1

import pytest
from celery import Celery
from celery.exceptions import OperationalError
from kombu.exceptions import EncodeError

from celery_heimdall import AlreadyQueuedError, HeimdallTask, RateLimit, Unique, limit, republish, task_deduplicated
from celery_heimdall.confirmations import confirm_soon
from celery_heimdall.inspection import locks
from celery_heimdall.task import acquire_lock, rate_limited_countdown, release_lock
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.errors import InvalidParameter, RedisFull, RedisUnavailable
from celery_toolkit_core.local_server import LocalServer
from celery_toolkit_core.scripts import source
from celery_toolkit_testkit import TcpProxy, eventually

#: Seconds that a machine may add to a timeout of two.
SLACK = 0.5
NOT_ON_CLUSTER = pytest.mark.not_on("cluster", reason="it watches or sets one server")


@pytest.fixture
def make_task(redis_url):
    apps = []

    def make(body=lambda value=None, **more: None, conf=None, **options):
        app = Celery("submitting", set_as_current=False)
        app.conf.update(
            broker_url="memory://",
            result_backend="cache+memory://",
            heimdall_redis_url=redis_url,
            task_publish_retry=False,
            broker_connection_timeout=1.0,
        )
        app.conf.update(conf or {})

        @app.task(base=HeimdallTask, shared=False, name="task", **options)
        def task(value=None, **more):
            return body(value, **more)

        app.finalize()
        apps.append(app)
        return app.tasks["task"]

    yield make
    for app in apps:
        app.close()


def held(task):
    return list(locks(task.heimdall_store))


def scripts(client, action):
    """The scripts of ours that reach the server during `action`, by their names."""
    names = {sha1(source("celery_heimdall", name).encode()).hexdigest(): name for name in ("reserve", "confirm")}
    with client.monitor() as monitor:
        client.echo("begin")
        action()
        client.echo("end")
        seen = []
        for entry in monitor.listen():
            if "ECHO end" in entry["command"]:
                break
            if entry["command"].startswith("EVALSHA"):
                seen.append(names[entry["command"].split()[1]])
    return seen


@NOT_ON_CLUSTER
def test_a_free_key_costs_the_caller_one_round_trip_and_a_duplicate_one(make_task, redis_client):
    """The confirmation may follow from a thread."""
    task = make_task(heimdall={"unique": True})
    task.delay("warm up")
    eventually(lambda: held(task)[0]["state"] == "queued")
    assert scripts(redis_client, lambda: task.delay("a")) in (["reserve"], ["reserve", "confirm"])
    eventually(lambda: all(lock["state"] == "queued" for lock in held(task)))
    assert scripts(redis_client, lambda: task.delay("a")) == ["reserve"]


def test_the_caller_does_not_wait_for_the_confirmation(make_task):
    task = make_task(heimdall={"unique": True})
    result = task.delay("a")
    assert held(task)[0]["holder"] == result.id
    eventually(lambda: held(task)[0]["state"] == "queued")
    assert held(task)[0]["accepts_next_in"] > 3500


@pytest.mark.not_on("cluster", "acl", "tls", "sentinel", "unix", reason="it goes through a proxy")
def test_a_confirmation_outlasts_an_outage(make_task, redis_server, caplog, monkeypatch):
    """Else the key is free after the reservation, a later call takes it, and this one is turned away in the worker."""
    with TcpProxy(redis_server.url) as proxy:
        task = make_task(heimdall={"unique": True}, conf={"heimdall_redis_url": proxy.url})
        monkeypatch.setattr("celery_heimdall.confirmations.GATHER", 1.0)  # time to cut the line
        monkeypatch.setattr("celery_heimdall.unique.confirm_soon", confirm_soon)  # `operations` has its own
        task.delay("a")
        with proxy.refusing():
            proxy.cut()
            eventually(lambda: "confirmation_failed" in caplog.text)
        eventually(lambda: held(task)[0]["state"] == "queued")


def test_a_duplicate_gets_an_error_that_says_who_and_how_long(make_task):
    task = make_task(heimdall={"unique": True, "unique_raises": True, "unique_timeout": 60})
    first = task.delay("a")
    with pytest.raises(AlreadyQueuedError) as caught:
        task.delay("a")
    assert caught.value.likely_culprit == first.id
    assert 50 < caught.value.expires_in <= 60
    assert task.delay("b").deduplicated is False


def test_the_setting_decides_where_the_task_says_nothing(make_task):
    task = make_task(heimdall={"unique": True}, conf={"heimdall_unique_raises": True, "heimdall_unique_timeout": 7})
    task.delay("a")
    with pytest.raises(AlreadyQueuedError) as caught:
        task.delay("a")
    assert caught.value.expires_in <= 7


def test_an_ignored_duplicate_has_an_id_and_is_revoked(make_task):
    task = make_task(unique=Unique(on_conflict="ignore"))
    first = task.delay("a")
    second = task.delay("a")
    assert second.id != first.id
    assert second.state == "REVOKED"


def test_a_duplicate_under_an_id_of_its_own_is_joined(make_task):
    """Somebody waits for that id: it must not stay pending for ever."""
    task = make_task(heimdall={"unique": True})
    holder = task.delay("a")
    with task.app.connection_for_read() as connection:
        size = connection.default_channel._size
        before = size("celery")
        own = task.apply_async(("a",), task_id="own")
        assert size("celery") == before + 1
    assert (own.id, own.deduplicated) == ("own", True)
    assert [lock["holder"] for lock in held(task)] == [holder.id]


def test_arguments_that_cannot_be_serialised_leave_no_lock(make_task):
    task = make_task(heimdall={"unique": True})
    with pytest.raises(EncodeError):
        task.delay(object())
    with pytest.raises(EncodeError):
        make_task(heimdall={"unique": True, "key": "one"}).delay(object())
    assert held(task) == []


def test_a_failed_publish_frees_the_key_at_once_and_raises_its_own_error(make_task, redis_url):
    """celery-heimdall 1.0 keeps the lock for an hour."""
    task = make_task(heimdall={"unique": True}, conf={"broker_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(OperationalError):
        task.delay("a")
    assert held(task) == []


def test_a_producer_killed_between_lock_and_publish_blocks_nobody_for_long(make_task, redis_url, monkeypatch):
    """celery-heimdall 1.0 keeps the lock for an hour."""
    task = make_task(heimdall={"unique": True})
    code = f"""
        import os
        from celery import Celery, Task
        from celery_heimdall import HeimdallTask, store
        store_seconds = 5.0
        from celery_heimdall import unique
        unique.RESERVATION = store_seconds
        app = Celery("submitting", broker="memory://")
        app.conf.heimdall_redis_url = {redis_url!r}
        @app.task(base=HeimdallTask, name="task", heimdall={{"unique": True}})
        def task(value=None, **more): pass
        Task.apply_async = lambda *args, **kwargs: os._exit(9)
        task.delay("a")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=False)
    assert done.returncode == 9
    assert held(task)[0]["state"] == "reserved"
    eventually(lambda: not task.delay("a").deduplicated)


def test_a_short_lived_process_confirms_before_it_ends(make_task, redis_url):
    task = make_task(heimdall={"unique": True})
    code = f"""
        from celery import Celery
        from celery_heimdall import HeimdallTask
        app = Celery("submitting", broker="memory://")
        app.conf.heimdall_redis_url = {redis_url!r}
        @app.task(base=HeimdallTask, name="task", heimdall={{"unique": True}})
        def task(value=None, **more): pass
        task.delay("a")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=True)
    assert [lock["state"] for lock in held(task)] == ["queued"]


@pytest.mark.alone
def test_a_redis_that_is_away_is_a_clear_error_within_its_timeout(make_task):
    task = make_task(heimdall={"unique": True}, conf={"heimdall_redis_url": "redis://:secret@127.0.0.1:1/0"})
    began = time.monotonic()
    with pytest.raises(RedisUnavailable, match=r"127\.0\.0\.1:1") as caught:
        task.delay("a")
    assert time.monotonic() - began <= 2
    assert "secret" not in str(caught.value)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_with_everything_on_one_redis_that_is_away_a_call_fails_within_two_seconds(how, make_task):
    """Celery's result backend would try for twenty, and is not reached before the lock."""
    with LocalServer() as server:
        conf = {"broker_url": server.url, "result_backend": server.url, "heimdall_redis_url": None}
        task = make_task(heimdall={"unique": True}, conf=conf)
        task.delay("a")
        eventually(lambda: held(task)[0]["state"] == "queued")
        if how == "frozen":
            os.kill(server.pid, signal.SIGSTOP)
        else:
            server.kill()
        try:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(RedisUnavailable):
                    task.delay("b")
                assert time.monotonic() - began < 2 + SLACK
        finally:
            if how == "frozen":
                os.kill(server.pid, signal.SIGCONT)


def test_without_redis_a_task_may_run_unprotected_if_so_configured(make_task):
    conf = {"heimdall_redis_url": "redis://127.0.0.1:1/0", "heimdall_on_redis_error": "run"}
    task = make_task(heimdall={"unique": True}, conf=conf)
    with task.app.connection_for_read() as connection:
        size = connection.default_channel._size
        before = size("celery")
        assert task.delay("a").id != task.delay("a").id
        assert size("celery") == before + 2


@NOT_ON_CLUSTER
def test_a_full_redis_refuses_clearly_and_still_frees(make_task, redis_client):
    task = make_task(heimdall={"unique": True, "key": lambda args, kwargs: args[0]})
    acquire_lock(task, "a", 60, task_id="one")
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisFull, match="maxmemory"):
            task.delay("b")
        assert release_lock(task, "a")
    finally:
        redis_client.config_set("maxmemory", 0)
    assert held(task) == []


def test_the_helpers_take_and_free_a_key_by_hand(make_task):
    task = make_task(heimdall={"unique": True, "key": "one"})
    acquire_lock(task, "one", 60, task_id="mine")
    assert task.delay("a").id == "mine"
    with pytest.raises(AlreadyQueuedError, match="mine"):
        acquire_lock(task, "one", 60, task_id="other")
    assert release_lock(task, "one")
    assert not release_lock(task, "one")


def test_the_countdown_of_a_limit_is_zero_while_there_is_room(make_task):
    task = make_task(heimdall={"times": 1, "per": 60})
    assert rate_limited_countdown(task, "", (), {}) == 0


def test_the_countdown_of_a_full_limit_tells_the_wait_and_may_be_asked_for_one_part(make_task):
    api = RateLimit("1/m", name="api")
    task = make_task(limits=[api])
    with limit(api, app=task.app):
        assert 50 < rate_limited_countdown(task, "", (), {}) <= 60
        assert rate_limited_countdown(task, "part", (), {}) == 0
    with pytest.raises(InvalidParameter, match="has a limit"):
        rate_limited_countdown(make_task(heimdall={"unique": True}), "", (), {})


def kept(task, task_id, **headers):
    headers = {"id": task_id, "task": task.name, **headers}
    return StoredMessage(b"[]", "application/json", "utf-8", headers, {}, "", "celery")


def test_a_kept_message_takes_its_key_again_before_it_is_sent(make_task):
    task, sent = make_task(heimdall={"unique": True}), []
    assert republish(task, kept(task, "one", heimdall_key="task:a"), lambda: sent.append("one")) is None
    assert republish(task, kept(task, "two", heimdall_key="task:a"), lambda: sent.append("two")) == "one"
    assert sent == ["one"]
    # Confirmed, as after any call: from a thread, which must not reach into the next test.
    eventually(lambda: [(lock["holder"], lock["state"]) for lock in held(task)] == [("one", "queued")])


def test_a_kept_message_that_could_not_be_sent_leaves_its_key_free(make_task):
    task = make_task(heimdall={"unique": True})

    def fail():
        raise OperationalError("the broker is away")

    with pytest.raises(OperationalError, match="the broker is away"):
        republish(task, kept(task, "one", heimdall_key="task:a"), fail)
    assert held(task) == []


def test_a_kept_message_that_was_not_unique_is_just_sent(make_task):
    task, sent = make_task(heimdall={"unique": True}), []
    assert republish(task, kept(task, "one"), lambda: sent.append("one")) is None
    assert sent == ["one"]
    assert held(task) == []


def test_a_block_runs_at_most_once_in_its_time(make_task):
    task = make_task(heimdall={"unique": True})
    assert task.only_after("mail", 0.2)
    assert not task.only_after("mail", 0.2)
    assert task.only_after("other", 60)
    eventually(lambda: task.only_after("mail", 0.2))


def test_a_task_may_bring_its_own_client(make_task, redis_client):
    class Own(HeimdallTask):
        abstract = True

        def setup_redis(self):
            return redis_client

    app = Celery("own", set_as_current=False, broker="memory://")

    @app.task(base=Own, shared=False, heimdall={"unique": True}, name="own")
    def own():
        return None

    assert own.heimdall_store.client is redis_client
    first = own.delay()
    assert own.delay().id == first.id


def test_calls_in_this_process_take_no_lock(make_task):
    task = make_task(heimdall={"unique": True, "times": 1, "per": 60})
    task("a")
    task.apply(("a",))
    eager = make_task(heimdall={"unique": True, "times": 1, "per": 60}, conf={"task_always_eager": True})
    eager.delay("a").get()
    eager.delay("a").get()
    assert held(task) == []


def test_a_prefix_parts_the_keys(make_task):
    one = make_task(heimdall={"unique": True, "lock_prefix": "one"})
    two = make_task(heimdall={"unique": True, "lock_prefix": "two"})
    assert one.delay("a").id != two.delay("a").id


@pytest.mark.parametrize("conf", [{}, {"heimdall_lock_prefix": "set", "heimdall_rate_limit_prefix": "set"}])
def test_the_prefixes_of_the_settings_are_those_of_tasks_that_say_nothing(make_task, conf):
    plain = make_task(heimdall={"unique": True, "times": 1, "per": 60}, conf=conf)
    own = make_task(
        heimdall={"unique": True, "times": 1, "per": 60, "lock_prefix": "set", "rate_limit_prefix": "set"}, conf=conf
    )
    meet = bool(conf)
    assert (plain.delay("a").id == own.delay("a").id) is meet
    with limit(RateLimit("1/m", name="task"), app=plain.app):
        assert (rate_limited_countdown(own, "", (), {}) > 0) is meet


def test_a_duplicate_call_is_told_by_a_signal_with_its_holder(make_task):
    task, seen = make_task(heimdall={"unique": True}), []

    def note(sender, task_id, holder, **_):
        seen.append((sender.name, holder))

    task_deduplicated.connect(note)
    try:
        first = task.delay("a")
        assert seen == []
        task.delay("a")
    finally:
        task_deduplicated.disconnect(note)
    assert seen == [("task", first.id)]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (lambda args, kwargs: None, InvalidParameter),
        (lambda args, kwargs: b"a", InvalidParameter),
        (lambda args, kwargs: {}["a"], KeyError),
    ],
    ids=["nothing", "bytes", "raises"],
)
def test_a_key_function_that_fails_is_the_callers_error_and_leaves_no_lock(make_task, key, error):
    task = make_task(heimdall={"unique": True, "key": key})
    with task.app.connection_for_read() as connection:
        before = connection.default_channel._size("celery")
        with pytest.raises(error):
            task.delay("a")
        assert connection.default_channel._size("celery") == before
    assert held(task) == []


def test_a_call_with_a_countdown_keeps_its_key_for_that_much_longer(make_task):
    task = make_task(heimdall={"unique": True, "unique_timeout": 60})
    first = task.apply_async(("a",), countdown=600)
    assert task.delay("a").id == first.id
    eventually(lambda: 600 < held(task)[0]["accepts_next_in"] <= 660)


def test_the_first_call_of_a_process_warns_of_a_misspelt_setting(make_task, caplog):
    """A producer is as wrong with it as a worker, and Celery takes it in silence."""
    task = make_task(heimdall={"unique": True}, conf={"heimdall_unique_raise": True})
    task.delay("a")
    task.delay("b")
    assert caplog.text.count("unknown_setting setting=heimdall_unique_raise did_you_mean=heimdall_unique_raises") == 1


def test_the_settings_of_celery_heimdall_without_effect_are_taken_and_checked(make_task):
    conf = {"heimdall_unique_lock_timeout": 0, "heimdall_unique_lock_blocking": False}
    task = make_task(heimdall={"unique": True, "unique_lock_timeout": 5, "unique_lock_blocking": True}, conf=conf)
    assert task.delay("a").id == task.delay("a").id
    with pytest.raises(InvalidParameter, match="heimdall_unique_lock_timeout"):
        make_task(heimdall={"unique": True}, conf={"heimdall_unique_lock_timeout": -1}).delay("a")
