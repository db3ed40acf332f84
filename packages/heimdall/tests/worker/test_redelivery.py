"""What a dead worker had in hand, when its key has gone to a later call."""

from __future__ import annotations

from celery_toolkit_testkit import eventually


def test_accepted_work_that_comes_back_runs_beside_or_instead_of_nobody(
    celery_app_module, celery_worker_process, event_log
):
    """Turned away as the duplicate of the later call, it would be lost: its caller was told that it will run."""
    app = celery_app_module("ruled")
    first = app.late.delay("a", seconds=4.0)
    worker = celery_worker_process("ruled")
    event_log.wait_for(1, what="begin")
    worker.kill()
    second = eventually(lambda: not (again := app.late.delay("a", seconds=2.0)).deduplicated and again)
    celery_worker_process("ruled", concurrency=4)
    assert [result.get(timeout=60) for result in (second, first)] == ["a", "a"]
    after = [(event["what"], event["id"]) for event in event_log.events()][1:]
    one_by_one = [[("begin", each.id), ("end", each.id)] for each in (first, second)]
    assert after in (one_by_one[0] + one_by_one[1], one_by_one[1] + one_by_one[0])
