"""A task that heimdall parks and wakes comes back to the line of its client that ranch took it from."""

from __future__ import annotations

from celery_ranch import audit
from celery_ranch.application import Address, ranch_of
from celery_ranch.reasons import explain
from celery_toolkit_testkit import eventually


def test_woken_tasks_wait_in_their_clients_own_line_and_in_its_order(
    celery_app_module, celery_worker_process, event_log
):
    module = celery_app_module("woken_turns_app")
    app = module.app
    limited = [module.limited.lru_delay("alice", number) for number in range(4)]
    free = [module.free.lru_delay("alice", number) for number in range(10, 13)]
    celery_worker_process("woken_turns_app", concurrency=2)
    eventually(lambda: explain(app, limited[-1].id)[0]["reason"] == "limited", timeout=60)
    assert "a rate or concurrency limit holds it back" in explain(app, limited[-1].id)[0]["why"]
    assert [result.get(timeout=90) for result in [*free, *limited]] == [10, 11, 12, 0, 1, 2, 3]
    started = [each["number"] for each in event_log.events(what="start") if each["number"] < 10]
    assert started == [0, 1, 2, 3]
    queues = ranch_of(app).backlog.queues().values()
    assert {Address.from_bytes(queue.address).name(app) for queue in queues} == {"celery"}

    def even():
        seen = audit(app)
        assert (seen["waiting"], seen["in_flight"], seen["missing"], seen["done"]) == (0, 0, 0, 7)
        assert seen["submitted"] == 7 + seen["handed_back"]
        return True

    eventually(even, timeout=60)
    assert explain(app, limited[0].id)[0]["reason"] == "ended"
