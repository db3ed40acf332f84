"""What listeners of Celery's events see of tasks that wait or are turned away: Flower is one of them."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from celery.events.state import State
from flower.events import EventsState
from prometheus_client import REGISTRY

from celery_toolkit_testkit import eventually


@pytest.fixture
def listen():
    """Feeds every event of an application into a state, from a thread, as Flower does."""
    stops = []

    def start(app, state):
        listening, stop = threading.Event(), threading.Event()
        history = []

        def take(event):
            state.event(event)
            if event["type"].startswith("task-"):
                history.append((event["uuid"], event["type"], state.tasks[event["uuid"]].state))

        def work():
            with app.connection_for_read() as connection:
                receiver = app.events.Receiver(connection, handlers={"*": take}, app=app)
                with receiver.consumer_context() as (opened, _, _):
                    listening.set()
                    while not stop.is_set():
                        with suppress(TimeoutError):
                            opened.drain_events(timeout=0.2)

        thread = threading.Thread(target=work)
        thread.start()
        stops.append((stop, thread))
        assert listening.wait(30)
        return history

    yield start
    for stop, _ in stops:
        stop.set()
    for _, thread in stops:
        thread.join(30)


@pytest.fixture
def flower_state():
    before = set(REGISTRY._collector_to_names)
    yield EventsState()
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def states_of(history, task_id):
    """The states in the order in which a viewer saw them, each once in a row."""
    seen = [state for uuid, _, state in history if uuid == task_id]
    return [state for number, state in enumerate(seen) if number == 0 or state != seen[number - 1]]


def test_a_parked_task_is_shown_so_and_then_goes_its_ordinary_way(
    celery_app_module, celery_worker_process, event_log, listen
):
    app = celery_app_module("ruled")
    history = listen(app.app, State())
    celery_worker_process("ruled", arguments=["-E"])
    app.slowly.delay("a")
    event_log.wait_for(1, what="end")
    second = app.slowly.delay("b")
    second.get(timeout=60)
    eventually(lambda: states_of(history, second.id)[-1:] == ["SUCCESS"])
    assert states_of(history, second.id) == ["PARKED", "WOKEN", "RETRY", "RECEIVED", "STARTED", "SUCCESS"]
    types = [kind for uuid, kind, _ in history if uuid == second.id]
    assert "task-retried" not in types


def test_a_retried_and_a_dropped_task_and_a_duplicate_are_shown_so(
    celery_app_module, celery_worker_process, event_log, listen
):
    app = celery_app_module("ruled")
    history = listen(app.app, State())
    celery_worker_process("ruled", arguments=["-E"])
    app.dropped.delay("a").get(timeout=60)
    dropped = app.dropped.delay("b")
    eventually(lambda: states_of(history, dropped.id)[-1:] == ["DROPPED"])
    app.again.delay("a")
    event_log.wait_for(1, what="begin", task="again")
    again = app.again.delay("b")
    eventually(lambda: states_of(history, again.id)[-1:] == ["SUCCESS"], timeout=60)
    assert states_of(history, again.id)[0] == "RETRY"
    app.late.delay("a", seconds=3.0)
    event_log.wait_for(1, what="begin", task="late")
    duplicate = app.app.send_task("late", ("a",))
    eventually(lambda: states_of(history, duplicate.id)[-1:] == ["DEDUPLICATED"])
    assert duplicate.state == "REVOKED"


def test_flower_shows_a_waiting_task_with_its_name_and_arguments(
    celery_app_module, celery_worker_process, event_log, listen, flower_state
):
    app = celery_app_module("ruled")
    listen(app.app, flower_state)
    celery_worker_process("ruled", arguments=["-E"])
    app.slowly.delay("a")
    event_log.wait_for(1, what="end")
    second = app.slowly.delay("b")
    task = eventually(lambda: flower_state.tasks.get(second.id))
    assert (task.name, task.state, "b" in task.args) == ("slowly", "PARKED", True)
    assert task.worker.hostname == "w1@test"
    second.get(timeout=60)
    eventually(lambda: flower_state.tasks[second.id].state == "SUCCESS")
    assert flower_state.counter["w1@test"]["task-parked"] == 1
