"""Duplicates inside a canvas: every chord, group and chain ends, and with results."""

from __future__ import annotations

import os
import signal

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, WorkerLostError

from celery_heimdall import AlreadyQueuedError
from celery_toolkit_testkit import eventually


def test_duplicates_in_groups_chords_and_chains_share_the_holders_result(
    celery_app_module, celery_worker_process, event_log
):
    """With every other add-on the canvas hangs: nobody ever stores the duplicate's result.

    One process: a waiting duplicate must hold no slot.
    """
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=1)
    holder = app.unique.delay("a", seconds=1.0)
    in_chord = chord([app.unique.s("a"), app.unique.s("a"), app.plain.s("x")], app.total.s()).apply_async()
    in_group = group(app.unique.s("a"), app.plain.s("y")).apply_async()
    in_chain = chain(app.plain.si("z"), app.unique.si("a")).apply_async()
    first_in_chain = chain(app.unique.si("a"), app.plain.s()).apply_async()
    linked = app.unique.apply_async(("a",), link=app.plain.s())
    value = holder.get(timeout=60)
    assert in_chord.get(timeout=60) == 3
    assert in_group.get(timeout=60) == [value, "y"]
    assert first_in_chain.get(timeout=60) == value
    assert in_chain.get(timeout=60).startswith("a by ")
    assert linked.get(timeout=60) == value
    assert event_log.events(what="begin", task="unique")[0]["id"] == holder.id


def test_a_joined_task_ends_as_its_holder_ends(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=1)
    holder = app.joined.delay("a", seconds=0.5, fail=True)
    duplicate = app.joined.delay("a")
    assert duplicate.id != holder.id
    assert duplicate.deduplicated
    with pytest.raises(ValueError, match="a"):
        duplicate.get(timeout=60)
    assert len(event_log.events(what="begin")) == 1


def test_when_the_holder_is_gone_without_a_result_one_of_the_joined_does_the_work(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", concurrency=2)
    holder = app.joined.delay("a", seconds=60.0)
    event_log.wait_for(1, what="begin")
    duplicates = [app.joined.delay("a") for _ in range(3)]
    worker.wait_for_log("task_parked", count=3)
    holder.revoke(terminate=True)
    values = {duplicate.get(timeout=60) for duplicate in duplicates}
    assert len(values) == 1
    assert len(event_log.events(what="begin")) == 2


def test_a_chord_fails_when_the_holder_of_its_duplicate_fails(celery_app_module, celery_worker_process):
    app = celery_app_module("guarded")
    celery_worker_process("guarded", concurrency=1)
    app.joined.delay("a", seconds=0.5, fail=True)
    with pytest.raises((ChordError, ValueError), match="a"):
        chord([app.joined.s("a"), app.plain.s("x")], app.total.s()).delay().get(timeout=60)


def test_when_the_holders_worker_is_killed_one_of_the_joined_does_the_work(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", concurrency=1)
    app.joined.delay("a", seconds=60.0)
    event_log.wait_for(1, what="begin")
    # No plain task in the header: what a killed worker has fetched, the broker keeps for its visibility timeout.
    in_chord = chord([app.joined.s("a"), app.joined.s("a")], app.total.s()).apply_async()
    worker.wait_for_log("task_parked", count=2)
    worker.kill()
    celery_worker_process("guarded", concurrency=1)
    assert in_chord.get(timeout=60) == 2
    assert len(event_log.events(what="begin")) == 2


def test_when_the_holder_is_revoked_before_its_body_one_of_the_joined_does_the_work(
    celery_app_module, celery_worker_process, event_log
):
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", concurrency=1, quiet=False)
    app.unique.delay("busy", seconds=3.0)
    event_log.wait_for(1, what="begin", key="busy")
    holder = app.unique.delay("a", seconds=60.0)
    joined = group(app.unique.s("a"), app.plain.s("y")).apply_async()
    worker.wait_for_log("task_parked")
    holder.revoke()
    assert joined.get(timeout=60)[1] == "y"
    assert [event["id"] for event in event_log.events(what="begin", key="a")] == [joined.results[0].id]


def test_the_loss_of_the_holders_process_is_shared_as_any_failure(celery_app_module, celery_worker_process, event_log):
    """Celery stores the loss as the holder's result."""
    app = celery_app_module("guarded")
    worker = celery_worker_process("guarded", concurrency=1)
    app.unique.delay("a", seconds=60.0)
    event_log.wait_for(1, what="begin")
    in_chord = chord([app.unique.s("a"), app.plain.s("x")], app.total.s()).apply_async()
    worker.wait_for_log("task_parked")
    (child,) = worker.child_pids()
    os.kill(child, signal.SIGKILL)
    with pytest.raises((ChordError, WorkerLostError), match="SIGKILL"):
        in_chord.get(timeout=60)
    assert len(event_log.events(what="begin")) == 1


def test_a_holder_that_keeps_no_result_is_joined_with_none(celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("strained")
    celery_worker_process("strained", concurrency=1)
    app.silent.delay("a", seconds=1.0)
    event_log.wait_for(1, what="begin")
    in_chord = chord([app.silent.s("a"), app.plain.s("x")], app.total.s()).apply_async()
    in_chain = chain(app.silent.si("a"), app.plain.si("z")).apply_async()
    assert in_chord.get(timeout=60) == 2
    assert in_chain.get(timeout=60) == "z"
    assert len(event_log.events(what="begin")) == 1


@pytest.mark.parametrize("fail", [False, True])
def test_a_packed_duplicate_keeps_its_own_links(fail, celery_app_module, celery_worker_process, event_log):
    app = celery_app_module("strained")
    celery_worker_process("strained", concurrency=1)
    holder = app.joined.delay("a", seconds=0.5, fail=fail)
    options = {"link": app.plain.s(), "link_error": app.heard.s(), "compression": "gzip"}
    duplicate = app.joined.apply_async(("a",), **options)
    if fail:
        with pytest.raises(ValueError, match="a"):
            duplicate.get(timeout=60)
        assert event_log.wait_for(1, what="heard")[0]["id"] == duplicate.id
    else:
        value = holder.get(timeout=60)
        assert duplicate.get(timeout=60) == value
        (child,) = eventually(lambda: duplicate.children)
        assert child.get(timeout=60) == value
    assert len(event_log.events(what="begin")) == 1


def test_a_task_that_raises_for_its_caller_is_joined_where_a_worker_goes_on_with_a_chain(
    celery_app_module, celery_worker_process, event_log
):
    """Nobody is there to catch the error, and the chain would be lost."""
    app = celery_app_module("strained")
    celery_worker_process("strained", concurrency=2)
    holder = app.strict.delay("a", seconds=3.0)
    event_log.wait_for(1, what="begin")
    with pytest.raises(AlreadyQueuedError, match=holder.id):
        chain(app.strict.si("a"), app.plain.s()).delay()
    later = chain(app.plain.si("z"), app.strict.si("a"), app.plain.s()).delay()
    assert later.get(timeout=60) == holder.get(timeout=60)
    assert len(event_log.events(what="begin")) == 1
