"""What was kept for a worker that died in the meantime goes to the key's worker of today at once."""

from __future__ import annotations

import pytest

from celery_toolkit_testkit import eventually


@pytest.mark.parametrize("name", ["limited", "limited_fair"])
def test_a_parked_task_wakes_at_its_keys_worker_of_today(name, celery_app_module, celery_worker_process, event_log):
    module = celery_app_module("forwarded_app")
    dying, living = (celery_worker_process("forwarded_app", concurrency=1) for _ in range(2))
    router, task = module.router, getattr(module, name)
    router.attach(module.app)
    eventually(lambda: set(router.ring) == {"w1", "w2"})
    customer = next(key for key in map(str, range(100)) if router.get_worker_for_key(key) == "w1")
    options = {"lru_key": customer} if name == "limited_fair" else {}
    results = [task.apply_async((number, customer), **options) for number in range(2)]
    assert results[0].get(timeout=60) == 0
    dying.wait_for_log("task_parked")
    dying.kill()
    assert results[1].get(timeout=60) == 1
    assert [event["worker"] for event in event_log.events(what="start")] == ["w1", "w2"]
    # Nobody had to fetch it out of a dead worker's queue.
    assert "chain_router_adopted queue=w1" not in living.log()
