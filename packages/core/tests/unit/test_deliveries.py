from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import InvalidTaskError
from kombu import Exchange, Queue
from kombu.message import Message
from vine import promise

from celery_toolkit_core.celery import deliveries
from celery_toolkit_core.celery.deliveries import CONTROL, TURN, Delivery, Follower, Gate, open_deliveries
from celery_toolkit_core.celery.gated_task import GatedTask

Proceed = Callable[[], None]


class Log(Follower):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def accepted(self, delivery: Delivery, pid: int) -> None:
        self.told.append(("accepted", pid))

    def ended(self, delivery: Delivery, outcome: str) -> None:
        self.told.append(outcome)

    def handed_back(self, delivery: Delivery) -> None:
        self.told.append("handed_back")


class Timer:
    """Keeps what is to be called later, until the test says that it is later."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((seconds, call))


class World:
    """A consumer and one message that it has received; `answers` is what the broker was told."""

    def __init__(self, app: Celery) -> None:
        self.answers: list[str] = []
        self.strategies: dict[str, Any] = {}
        self.timer = Timer()
        self.refused: list[str] = []
        self.consumer: Any = SimpleNamespace(
            app=app,
            connection_errors=(OSError,),
            strategies=self.strategies,
            timer=self.timer,
            restart_count=0,
            pool=SimpleNamespace(uses_semaphore=True),
            on_unknown_task=lambda body, message, error: self.refused.append("unknown"),
            on_invalid_task=lambda body, message, error: self.refused.append("invalid"),
            on_decode_error=lambda message, error: self.refused.append("decode"),
        )
        self.message = Message(b"[]", headers={"id": "abc", "task": "unit.task"}, delivery_info={"routing_key": "q"})
        self.log = Log()

    def ack(self, logger: Any, errors: Any) -> None:
        self.answers.append("ack")

    def reject(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        self.answers.append(f"reject requeue={requeue}")

    def delivery(self) -> Delivery:
        made = Delivery(self.message, None, self.ack, self.reject, None, self.consumer)
        made.follow(self.log)
        return made


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("unit", broker="memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def world(app: Celery) -> Iterator[World]:
    yield World(app)
    for left in open_deliveries():
        left.end("lost")


def gate(rank: int, act: Callable[[Delivery, Proceed], None]) -> Gate:
    made = Gate()
    made.__class__ = type("TestGate", (Gate,), {"rank": rank, "__call__": lambda self, d, proceed: act(d, proceed)})
    return made


def body() -> None:
    """Of every task here; it never runs."""


def never(*_: Any) -> None:
    pytest.fail("the strategy must not see this message")


@pytest.mark.parametrize("bases", ["turn first", "control first"])
def test_gates_stand_by_rank_whatever_the_order_of_the_bases(app: Celery, world: World, bases: str) -> None:
    seen: list[str] = []

    def passing(name: str) -> Callable[[Delivery, Proceed], None]:
        def act(delivery: Delivery, proceed: Proceed) -> None:
            seen.append(name)
            proceed()

        return act

    class Turn(GatedTask):
        abstract = True

        def gates(self, consumer: Any) -> list[Gate]:
            return [*super().gates(consumer), gate(TURN, passing("turn"))]

    class Control(GatedTask):
        abstract = True

        def gates(self, consumer: Any) -> list[Gate]:
            return [*super().gates(consumer), gate(CONTROL, passing("control"))]

    class Plain:
        """Celery's own strategy, as the task's attribute names it."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __call__(self, message: Message, payload: Any, *_: Any) -> None:
            seen.append("celery")

    both = (Turn, Control) if bases == "turn first" else (Control, Turn)
    task = app.task(body, base=type("Both", both, {"abstract": True}), name="unit.task", Strategy=Plain)
    strategy = task.start_strategy(app, world.consumer)
    strategy(world.message, None, world.ack, world.reject, None)
    assert seen == ["turn", "control", "celery"]


def test_a_task_without_gates_costs_nothing(app: Celery, world: World) -> None:
    class Plain:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

    task = app.task(body, base=GatedTask, name="unit.task", Strategy=Plain)
    assert isinstance(task.start_strategy(app, world.consumer), Plain)


def test_a_message_of_protocol_1_goes_past_the_gates_untouched(app: Celery, world: World) -> None:
    calls: list[Any] = []

    class Plain:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __call__(self, *args: Any) -> None:
            calls.append(args)

    class Shut(GatedTask):
        abstract = True

        def gates(self, consumer: Any) -> list[Gate]:
            return [gate(CONTROL, never)]

    task = app.task(body, base=Shut, name="unit.task", Strategy=Plain)
    message = Message(b'{"task": "unit.task", "id": "a"}')
    task.start_strategy(app, world.consumer)(message, {"id": "a"}, world.ack, world.reject, None)
    assert calls == [(message, {"id": "a"}, world.ack, world.reject, None)]
    assert not open_deliveries()


def test_the_end_is_told_once(world: World) -> None:
    delivery = world.delivery()
    assert Delivery.of(world.message) is delivery
    delivery.accept(7)
    delivery.end("success")
    delivery.end("failure")
    delivery.accept(8)
    delivery.hand_back()
    assert world.log.told == [("accepted", 7), "success"]
    assert Delivery.of(world.message) is None
    assert not open_deliveries()


def test_what_is_handed_back_is_acknowledged_after_its_followers_know(world: World) -> None:
    order: list[Any] = []
    world.log.handed_back = lambda delivery: order.append((delivery.why, list(world.answers)))  # type: ignore[method-assign]
    delivery = world.delivery()
    delivery.pass_gates([gate(CONTROL, lambda delivery, proceed: delivery.hand_back("limited"))], never)
    delivery.end("success")
    assert order == [("limited", [])]
    assert world.answers == ["ack"]
    assert world.log.told == []


@pytest.mark.parametrize("fault", ["raises", "keeps"])
def test_a_gate_that_fails_gives_the_message_back_to_the_broker(
    world: World, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Not at once: a lasting fault would go round as fast as the broker can."""

    def act(delivery: Delivery, proceed: Proceed) -> None:
        if fault == "raises":
            raise KeyError("celery ends a worker for this")

    world.delivery().pass_gates([gate(CONTROL, act)], never)
    assert world.answers == []
    assert world.log.told == []
    ((seconds, call),) = world.timer.calls
    assert seconds == deliveries.RETURN_DELAY
    call()
    call()
    assert world.answers == ["reject requeue=True"]
    assert world.log.told == ["requeued"]
    assert "unit.task[abc]" in caplog.text


def test_a_gate_that_fails_after_the_message_proceeded_is_only_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def act(delivery: Delivery, proceed: Proceed) -> None:
        proceed()
        raise KeyError("late")

    calls: list[Any] = []
    world.delivery().pass_gates([gate(CONTROL, act)], lambda *args: calls.append(args))
    assert len(calls) == 1
    assert not world.timer.calls
    assert not world.answers
    assert "late" in caplog.text


def test_a_gate_cannot_start_a_task_twice(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def act(delivery: Delivery, proceed: Proceed) -> None:
        proceed()
        proceed()

    calls: list[Any] = []
    world.delivery().pass_gates([gate(CONTROL, act)], lambda *args: calls.append(args))
    assert len(calls) == 1
    assert "proceed twice" in caplog.text


@pytest.mark.parametrize(("error", "told"), [(InvalidTaskError("no"), ["rejected"]), (OSError("broker gone"), [])])
def test_what_celerys_own_strategy_raises_is_left_to_celery(world: World, error: Exception, told: list[str]) -> None:
    def strategy(*_: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        world.delivery().pass_gates([gate(CONTROL, lambda delivery, proceed: proceed())], strategy)
    assert world.log.told == told
    assert not world.timer.calls


def test_hand_over_goes_to_the_strategy_of_the_task(world: World) -> None:
    calls: list[Any] = []
    world.strategies["unit.task"] = lambda *args: calls.append(args)
    delivery = world.delivery()
    delivery.hand_over()
    ((message, payload, *_),) = calls
    assert (message, payload) == (world.message, None)
    assert open_deliveries() == (delivery,)


def test_hand_over_of_a_task_that_nobody_knows(world: World) -> None:
    world.delivery().hand_over()
    assert world.refused == ["unknown"]
    assert world.log.told == ["unknown"]


def test_hand_over_of_a_message_that_celery_cannot_read(world: World) -> None:
    def strategy(*_: Any) -> None:
        raise InvalidTaskError("no")

    world.strategies["unit.task"] = strategy
    world.delivery().hand_over()
    assert world.refused == ["invalid"]
    assert world.log.told == ["rejected"]


@pytest.mark.parametrize(
    ("expires", "outcome"),
    [
        (None, "revoked"),
        ("2000-01-01T00:00:00+00:00", "expired"),
        ("2000-01-01T00:00:00", "expired"),
        ("2999-01-01T00:00:00+00:00", "revoked"),
        ("nonsense", "revoked"),
    ],
)
def test_an_acknowledgement_before_there_is_a_request_means_revoked_or_expired(
    world: World, expires: str | None, outcome: str
) -> None:
    world.message.headers["expires"] = expires
    world.delivery().ack(logging.getLogger(), ())
    assert world.log.told == [outcome]
    assert world.answers == ["ack"]


def test_the_answers_stay_the_promises_that_celery_made(world: World) -> None:
    """The consumer counts on them after a reconnect, to raise its prefetch count again."""
    fulfilled: list[Any] = []
    ack = promise(world.ack)
    ack.then(lambda *_: fulfilled.append("then"))
    delivery = Delivery(world.message, None, ack, promise(world.reject), None, world.consumer)
    delivery.ack(logging.getLogger(), ())
    assert fulfilled == ["then"]
    assert delivery.ack.ready  # type: ignore[attr-defined]  # of the promise


def test_a_follower_that_fails_does_not_keep_the_others_from_knowing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Follower):
        def ended(self, delivery: Delivery, outcome: str) -> None:
            raise KeyError("on purpose")

    delivery = Delivery(world.message, None, world.ack, world.reject, None, world.consumer)
    delivery.follow(Broken())
    delivery.follow(world.log)
    delivery.end("success")
    assert world.log.told == ["success"]
    assert "on purpose" in caplog.text


@pytest.mark.parametrize(
    ("where", "queue"),
    [
        ({"exchange": "", "routing_key": "jobs.wake"}, "jobs.wake"),
        ({"exchange": "topic", "routing_key": "a.b"}, "by-topic"),
        ({"exchange": "other", "routing_key": "x"}, "x"),
    ],
)
def test_the_queue_of_a_delivery(app: Celery, world: World, where: dict[str, str], queue: str) -> None:
    app.conf.task_queues = [Queue("jobs"), Queue("by-topic", Exchange("topic", type="topic"), routing_key="a.b")]
    world.message.delivery_info = where
    assert world.delivery().queue == queue


@pytest.mark.parametrize(
    ("pool_drops", "pid", "given", "told"),
    [
        (True, None, True, ["requeued"]),  # prefork: no child has accepted it
        (True, 7, True, []),  # its body runs
        (False, None, True, []),  # threads: the pool will run it all the same
        (False, None, False, ["requeued"]),  # waits for its time or its rate
    ],
)
def test_a_reconnect_ends_what_celery_dropped(
    world: World, pool_drops: bool, pid: int | None, given: bool, told: list[str]
) -> None:
    delivery = world.delivery()
    delivery.request = SimpleNamespace(_apply_result=object() if given else None)
    delivery.pid = pid
    world.consumer.pool.uses_semaphore = pool_drops
    deliveries.forget_dropped(world.consumer)  # the first start of a consumer is no reconnect
    assert world.log.told == []
    world.consumer.restart_count = 1
    deliveries.forget_dropped(world.consumer)
    assert world.log.told == told


@pytest.mark.parametrize(("acknowledged", "outcome"), [(True, "lost"), (False, "requeued")])
def test_a_shutdown_ends_what_is_left(world: World, acknowledged: bool, outcome: str) -> None:
    delivery = world.delivery()
    delivery.request = SimpleNamespace(acknowledged=acknowledged)
    deliveries.end_all()
    assert world.log.told == [outcome]
