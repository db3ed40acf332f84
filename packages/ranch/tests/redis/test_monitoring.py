"""Standings, metrics and signals: what is seen of the backlog."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from celery_ranch import Clients, lru_task, signals
from celery_ranch.application import ranch_of
from celery_ranch.entries import Report
from celery_ranch.history import runs
from celery_ranch.metrics import install
from celery_ranch.standings import jain, percentile, standings


@pytest.fixture
def task(app):
    @lru_task(app, shared=False, name="monitoring.task")
    def task(text=None):
        pass

    return task


def run(app, claim, count, seconds=0.5):
    """Claim and settle; the clients in the order of their turns."""
    order = []
    for _ in range(count):
        claimed = claim(app)
        ranch_of(app).backlog.report([Report("end", claimed.entry, claimed.token, "done", repr(seconds))])
        order.append(claimed.label)
    return order


def test_standings_tell_shares_and_waits(app, task, claim):
    Clients(app).set_weight("gold", 0.5)
    for _ in range(20):
        task.lru_delay("gold")
        task.lru_delay("silver")
    run(app, claim, 15)
    seen = standings(app)
    rows = {row.lru_key: row for row in seen.clients}
    assert [(key, round(rows[key].entitled, 3), round(rows[key].received, 3)) for key in ("gold", "silver")] == [
        ("gold", 0.667, 0.667),
        ("silver", 0.333, 0.333),
    ]
    assert seen.jain == pytest.approx(1.0)
    assert (rows["gold"].backlog, rows["silver"].backlog) == (10, 15)
    assert 0 <= rows["gold"].wait_p50 <= rows["gold"].wait_p95 < 60


def test_jain_is_one_over_n_when_one_gets_all():
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([2, 2]) == pytest.approx(1.0)
    assert jain([1]) is None
    assert jain([0, 0]) is None


def test_percentiles_are_values_that_occurred():
    assert percentile([], 50) is None
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0


def test_the_history_is_bounded(app, task, claim):
    backlog = ranch_of(app).backlog
    backlog.client.lpush(backlog.key("history"), *["1 c q 1 1 1"] * 11_000)
    task.lru_delay("a")
    run(app, claim, 1)
    assert backlog.client.llen(backlog.key("history")) == 10_000
    newest = next(runs(backlog))
    assert (newest.ran, newest.cost) == (0.5, 1.0)


def test_top_looks_once_for_scripts_and_for_people(app, task, claim, ranch):
    for _ in range(3):
        task.lru_delay("a")
    run(app, claim, 1)
    (row,) = json.loads(ranch("top", "--once", "--json"))["clients"]
    assert (row["lru_key"], row["backlog"], row["received"], row["entitled"]) == ("a", 2, 1.0, 1.0)
    shown = ranch("top", "--once")
    assert "1 clients, last 60 s, Jain's index -" in shown
    assert "100.0%" in shown


def test_metrics_name_the_backlog_of_each_queue_and_no_client(app, task, claim):
    registry = CollectorRegistry()
    install(app, registry)
    for _ in range(3):
        task.lru_delay("alice")
    task.lru_apply_async("alice", queue="reports")
    text = generate_latest(registry).decode()
    assert 'ranch_backlog{queue="celery"} 3.0' in text
    assert 'ranch_backlog{queue="reports"} 1.0' in text
    assert "ranch_tasks_submitted_total 4.0" in text
    assert "ranch_tasks_missing 0.0" in text
    assert "ranch_up 1.0" in text
    assert "alice" not in text
    signals.task_claimed.send(sender="t", queue="celery", waited=2.0, task_id="1", lru_key="alice")
    assert 'ranch_wait_seconds_bucket{le="5.0",queue="celery"} 1.0' in generate_latest(registry).decode()
    signals.task_claimed.disconnect(dispatch_uid=f"ranch_wait_seconds {id(registry)}")


def test_metrics_say_so_when_redis_is_away(app, redis_server):
    registry = CollectorRegistry()
    app.conf.ranch_redis_url = "redis://127.0.0.1:1"
    install(app, registry)
    assert "ranch_up 0.0" in generate_latest(registry).decode()


def test_the_command_prints_metrics_with_clients_only_when_asked(task, ranch):
    task.lru_delay("alice")
    assert "alice" not in ranch("metrics")
    assert 'ranch_client_backlog{client="alice"} 1.0' in ranch("metrics", "--clients")


def test_who_enqueues_sends_a_signal(task):
    seen = []
    signals.task_enqueued.connect(lambda **about: seen.append(about), weak=False, dispatch_uid="test")
    try:
        result = task.lru_delay("a")
    finally:
        signals.task_enqueued.disconnect(dispatch_uid="test")
    assert (seen[0]["sender"], seen[0]["task_id"], seen[0]["lru_key"]) == ("monitoring.task", result.id, "a")
