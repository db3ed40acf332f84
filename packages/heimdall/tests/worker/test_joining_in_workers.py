"""Duplicates inside a canvas: every chord, group and chain ends, and with results."""

from __future__ import annotations

import pytest
from celery import chain, chord, group


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
