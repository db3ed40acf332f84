"""The backlog's scripts on a real server: fairness, idempotence, leases."""

from __future__ import annotations

import time
from itertools import pairwise
from uuid import uuid4

import pytest

from celery_ranch.backlog import Backlog, client_of, queue_of
from celery_ranch.entries import Report, Submission
from celery_toolkit_core.keys import KeySpace
from celery_toolkit_testkit import eventually

Q = queue_of("", "celery")


@pytest.fixture
def backlog(redis_client):
    return Backlog(redis_client, KeySpace("ranch"))


def put(backlog, label, text=None, entry=None, **more):
    task = Submission(
        message=(text or label).encode(),
        queue=more.pop("queue", Q),
        address=b"celery",
        client=client_of(label),
        label=label,
        task_id=text or label,
        **more,
    )
    return backlog.enqueue(task, entry)[:2]


def take(backlog, *, ticket=None, token=None, reports=(), lease=30.0, queue=Q, max_attempts=3):
    return backlog.claim(
        queue,
        ticket or uuid4().hex,
        token or uuid4().hex,
        lease=lease,
        max_attempts=max_attempts,
        reports=reports,
    )


def end(claimed, outcome="done", seconds=None):
    return Report("end", claimed.entry, claimed.token, outcome, "" if seconds is None else repr(seconds))


def served(backlog, count):
    """Claim and settle `count` tasks one by one; the messages in the order of their turns."""
    order, reports = [], []
    for _ in range(count):
        answer = take(backlog, reports=reports)
        order.append(answer.claimed.message.decode())
        reports = [end(answer.claimed)]
    backlog.report(reports)
    return order


def balanced(backlog):
    """The conservation law: every task submitted is in exactly one place."""
    seen = backlog.audit()
    places = sum(seen[name] for name in ("scheduled", "waiting", "in_flight", "dead", "quarantined"))
    ended = sum(seen[name] for name in ("done", "expired", "revoked", "abandoned", "handed_back", "purged"))
    assert seen["submitted"] == places + ended
    assert seen["entries"] == seen["messages"] == places
    return seen


def test_equal_clients_take_turns_in_the_order_of_their_arrival(backlog):
    for number in range(3):
        for label in "abc":
            put(backlog, label, f"{label}{number}")
    assert served(backlog, 9) == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]
    assert balanced(backlog)["done"] == 9


def test_a_new_client_does_not_wait_behind_a_bulk_client(backlog):
    """celery-ranch 0.1.1 ran it at place 61 of 61."""
    for number in range(60):
        put(backlog, "bulk", f"bulk{number}")
    assert served(backlog, 5)[-1] == "bulk4"
    put(backlog, "new")
    assert "new" in served(backlog, 2)


def test_a_lower_weight_is_served_more_often(backlog):
    weights = {"gold": 0.5, "silver": 1.0, "bronze": 2.0}
    for label, weight in weights.items():
        for _ in range(140):
            put(backlog, label, weight=weight)
    order = served(backlog, 140)
    assert [order.count(label) for label in weights] == [80, 40, 20]


def test_costs_count_like_so_many_tasks(backlog):
    for _ in range(40):
        put(backlog, "heavy", cost=3.0)
        put(backlog, "light")
    order = served(backlog, 40)
    assert order.count("light") == 30


def test_idleness_earns_no_credit(backlog):
    put(backlog, "idler")
    served(backlog, 1)
    for _ in range(30):
        put(backlog, "busy")
    served(backlog, 20)
    for _ in range(10):
        put(backlog, "idler")
    order = served(backlog, 10)
    assert order.count("idler") == 5


def test_leaving_and_returning_does_not_skip_the_line(backlog):
    for _ in range(10):
        put(backlog, "steady")
    order = []
    for _ in range(10):
        put(backlog, "hopper")
        order += served(backlog, 1)
    assert 4 <= order.count("hopper") <= 6


def test_setting_a_weight_does_not_reset_the_age_of_a_client(backlog):
    for label in "ab":
        for number in range(3):
            put(backlog, label, f"{label}{number}")
    assert served(backlog, 1) == ["a0"]
    backlog.run("client", [client_of("b"), "b", "w", "1.0"])
    assert served(backlog, 1) == ["b0"]


def test_priority_orders_inside_a_client_only(backlog):
    put(backlog, "a", "low", rank=9)
    put(backlog, "a", "high", rank=0)
    put(backlog, "b", "other", rank=9)
    assert served(backlog, 3) == ["high", "other", "low"]


def test_queues_are_fair_each_for_itself(backlog):
    other = queue_of("", "other")
    put(backlog, "a", "here")
    put(backlog, "a", "there", queue=other)
    assert take(backlog, queue=other).claimed.message == b"there"
    assert take(backlog).claimed.message == b"here"


def test_an_enqueue_replayed_does_nothing_even_after_the_task_has_ended(backlog):
    entry = uuid4().hex
    put(backlog, "a", entry=entry)
    assert put(backlog, "a", entry=entry) == ("again", 1)
    served(backlog, 1)
    assert put(backlog, "a", entry=entry) == ("again", 0)
    assert balanced(backlog)["submitted"] == 1


def test_a_claim_replayed_returns_the_same_task(backlog):
    put(backlog, "a", "a0")
    put(backlog, "a", "a1")
    first = take(backlog, ticket="t", token="w")
    assert take(backlog, ticket="t", token="w").claimed == first.claimed
    assert balanced(backlog)["in_flight"] == 1


def test_a_redelivered_ticket_is_refused_while_its_task_is_in_good_hands(backlog):
    put(backlog, "a", "a0")
    put(backlog, "a", "a1")
    assert take(backlog, ticket="t").claimed.message == b"a0"
    assert take(backlog, ticket="t").state == "alive"


def test_a_redelivered_ticket_takes_over_when_the_lease_has_ended(backlog):
    put(backlog, "a", "a0")
    first = take(backlog, ticket="t", lease=0.001).claimed
    eventually(lambda: take(backlog, ticket="t").state == "claimed", timeout=30)
    late, _ = backlog.report([end(first)])
    assert late == 1
    assert balanced(backlog)["in_flight"] == 1


def test_a_claim_replayed_after_its_lease_has_it_renewed(backlog):
    """A client that sends a claim again, long after the first, is about to run the task."""
    put(backlog, "a")
    first = take(backlog, ticket="t", token="mine", lease=0.001)
    eventually(lambda: backlog.client.zcount(backlog.key("inflight"), "-inf", time.time() * 1000) == 1)
    assert take(backlog, ticket="t", token="mine", lease=30).claimed.entry == first.claimed.entry
    assert backlog.tend(max_attempts=3).returned == 0
    assert take(backlog, ticket="t", token="other").state == "alive"


def test_a_killed_child_counts_as_an_attempt_and_its_task_returns_to_the_head(backlog):
    put(backlog, "a", "first")
    put(backlog, "a", "second")
    claimed = take(backlog, ticket="t", token="mine").claimed
    lost = Report("lost", claimed.entry, claimed.token)
    assert backlog.report([lost])[0] == 0
    assert backlog.renew([(claimed.entry, "mine")], lease=30) == [claimed.entry]
    assert backlog.tend(max_attempts=2).returned == 1
    assert backlog.report([lost])[0] == 1
    again = take(backlog).claimed
    assert (again.message, again.attempts) == (b"first", 1)
    backlog.report([Report("lost", again.entry, again.token)])
    assert [message for _, message in backlog.tend(max_attempts=2).dead] == [b"first"]
    assert balanced(backlog)["dead"] == 1


def test_the_ticket_of_a_task_that_had_its_last_attempt_leaves_it_to_the_care(backlog):
    """Found dead by a redelivered ticket, nobody would be told of its end."""
    put(backlog, "a")
    claimed = take(backlog, ticket="t").claimed
    backlog.report([Report("lost", claimed.entry, claimed.token)])
    assert take(backlog, ticket="t", max_attempts=1).state == "alive"
    assert len(backlog.tend(max_attempts=1).dead) == 1


def test_a_surplus_ticket_is_a_no_op(backlog):
    assert take(backlog).state == "empty"


def test_settling_twice_counts_once(backlog):
    put(backlog, "a")
    claimed = take(backlog).claimed
    assert backlog.report([end(claimed), end(claimed)])[0] == 1
    assert balanced(backlog)["done"] == 1


def test_a_task_of_a_dead_worker_returns_to_the_head_of_its_client(backlog):
    for number in range(3):
        put(backlog, "a", f"a{number}")
    take(backlog, lease=0.001)
    care = eventually(lambda: (care := backlog.tend(max_attempts=3)).returned and care, timeout=30)
    assert [(each.address, each.number) for each in care.tickets] == [(b"celery", 1)]
    again = take(backlog).claimed
    assert (again.message, again.attempts) == (b"a0", 1)


def test_after_the_last_attempt_a_task_is_dead_and_kept(backlog):
    put(backlog, "a", "a0")
    for _ in range(2):
        assert take(backlog, lease=0.001, max_attempts=2).claimed
        care = eventually(lambda: (care := backlog.tend(max_attempts=2)) and (care.returned or care.dead) and care)
    assert care.dead == [("a0", b"a0")]
    assert balanced(backlog)["dead"] == 1


def test_an_early_acknowledged_body_that_had_begun_is_not_repeated(backlog):
    put(backlog, "a")
    claimed = take(backlog, lease=0.001).claimed
    backlog.report([Report("start", claimed.entry, claimed.token)])
    eventually(lambda: backlog.tend(max_attempts=3).abandoned == 1)
    assert balanced(backlog)["abandoned"] == 1


def test_a_renewed_lease_is_not_reaped_and_a_lost_one_is_told(backlog):
    put(backlog, "a")
    claimed = take(backlog, lease=1.0).claimed
    assert backlog.renew([(claimed.entry, claimed.token)], lease=30) == []
    assert backlog.renew([(claimed.entry, "another")], lease=30) == [claimed.entry]
    assert backlog.tend(max_attempts=3).returned == 0


@pytest.mark.parametrize("outcome", ["handed_back", "expired", "revoked"])
def test_a_turn_without_work_is_given_back(backlog, outcome):
    for label in "ab":
        for number in range(3):
            put(backlog, label, f"{label}{number}")
    claimed = take(backlog).claimed
    backlog.report([end(claimed, outcome)])
    assert served(backlog, 2) == ["a1", "b0"]
    assert balanced(backlog)[outcome] == 1


def test_a_requeued_task_stands_at_the_head_of_its_client_and_asks_for_a_ticket(backlog):
    put(backlog, "a", "a0")
    put(backlog, "a", "a1")
    claimed = take(backlog).claimed
    assert backlog.report([end(claimed, "requeued")])[1][0].number == 1
    assert served(backlog, 2) == ["a0", "a1"]


def test_a_task_with_a_delay_waits_outside_the_line(backlog):
    assert put(backlog, "a", delay=0.05)[0] == "scheduled"
    assert take(backlog).state == "empty" or balanced(backlog)["in_flight"]
    eventually(lambda: backlog.tend(max_attempts=3).tickets or balanced(backlog)["in_flight"])
    assert served(backlog, 1) == ["a"]


def test_an_idle_worker_is_given_the_missing_tickets_once_a_second(backlog):
    for _ in range(7):
        put(backlog, "a")
    assert backlog.tend(max_attempts=3, idle_queues=[Q]).tickets[0].number == 7
    assert backlog.tend(max_attempts=3, idle_queues=[Q]).tickets == []


@pytest.fixture
def tend_later(backlog, redis_client):
    """The periodic care so many seconds later: how many tickets it issues."""

    def tend_later(seconds):
        for name in (backlog.key("served"), backlog.key("reissued")):
            for field, at in redis_client.hgetall(name).items():
                if at.isdigit():
                    redis_client.hset(name, field, int(at) - 1000 * seconds)
        return sum(tickets.number for tickets in backlog.tend(max_attempts=3).tickets)

    return tend_later


def test_a_queue_that_nobody_serves_any_more_is_given_tickets_ever_more_seldom(backlog, tend_later):
    """A ticket lost with a worker that never comes back: whoever empties its queue must come across another."""
    for _ in range(12):
        put(backlog, "a")
    backlog.tend(max_attempts=3, busy_queues=[Q])
    assert tend_later(4) == 0
    issued = [age for age in range(4 + 6, 604, 6) if tend_later(6) == 10]
    pauses = [after - before for before, after in pairwise(issued)]
    assert issued[0] == 10
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60
    backlog.tend(max_attempts=3, busy_queues=[Q])
    assert tend_later(4) == 0


def test_a_queue_whose_tickets_others_have_taken_over_needs_no_more(backlog, tend_later):
    """The tickets of a dead worker, moved to a living one, and ten more every few seconds: a flood of no-ops."""
    for _ in range(12):
        put(backlog, "a")
    backlog.tend(max_attempts=3, busy_queues=[Q])
    assert tend_later(6) == 10
    for _ in range(11):
        served(backlog, 1)
        assert tend_later(60) == 0
    assert tend_later(60) == 1


def test_a_cap_holds_back_only_its_client_and_frees_one_by_one(backlog):
    backlog.run("client", [client_of("a"), "a", "x", 1])
    for number in range(3):
        put(backlog, "a", f"a{number}")
    put(backlog, "b", "b0")
    first = take(backlog).claimed
    assert take(backlog).claimed.message == b"b0"
    assert take(backlog).state == "empty"
    answer = take(backlog, reports=[end(first)])
    assert answer.claimed.message == b"a1"
    assert answer.tickets[0].number == 1


def test_a_paused_client_waits_and_resumes_with_tickets(backlog):
    put(backlog, "a", "a0")
    put(backlog, "a", "a1")
    backlog.run("client", [client_of("a"), "a", "h", "1"])
    assert take(backlog).state == "empty"
    assert backlog.run("client", [client_of("a"), "a", "h", ""]) == [b"celery", 2]
    assert served(backlog, 2) == ["a0", "a1"]


def test_a_cap_lifted_late_earns_no_credit(backlog):
    for _ in range(40):
        put(backlog, "a")
        put(backlog, "b")
    backlog.run("client", [client_of("a"), "a", "h", "1"])
    served(backlog, 20)
    backlog.run("client", [client_of("a"), "a", "h", ""])
    assert served(backlog, 10).count("a") == 5


def test_runtime_shares_seconds_not_counts(backlog):
    for _ in range(600):
        put(backlog, "slow", cost="runtime")
        put(backlog, "fast", cost="runtime")
    seconds, spent, reports = {"slow": 1.0, "fast": 0.1}, {"slow": 0.0, "fast": 0.0}, []
    for _ in range(500):
        claimed = take(backlog, reports=reports).claimed
        spent[claimed.label] += seconds[claimed.label]
        reports = [end(claimed, seconds=seconds[claimed.label])]
    assert spent["slow"] / sum(spent.values()) == pytest.approx(0.5, abs=0.03)


def test_a_weight_function_corrects_the_turn_and_counts_from_then_on(backlog):
    for _ in range(60):
        put(backlog, "a", weighed=True)
        put(backlog, "b")
    order, reports = [], []
    for _ in range(60):
        claimed = take(backlog, reports=reports).claimed
        order.append(claimed.label)
        reports = [end(claimed)]
        if claimed.weighed:
            reports.insert(0, Report("weigh", claimed.entry, claimed.token, "2.0"))
    assert order.count("a") == pytest.approx(20, abs=1)


def test_a_full_backlog_refuses(backlog):
    assert put(backlog, "a", limit=1) == ("waiting", 1)
    assert put(backlog, "a", limit=1) == ("full", 1)
    assert balanced(backlog)["submitted"] == 1


def test_an_unreadable_entry_is_put_aside_and_the_next_is_served(backlog, redis_client):
    entry = uuid4().hex
    put(backlog, "a", "a0", entry=entry)
    put(backlog, "a", "a1")
    redis_client.hset(backlog.keys[0], entry, b"\xc1")
    assert take(backlog).claimed.message == b"a1"
    assert balanced(backlog)["quarantined"] == 1


def test_claim_and_settle_work_when_redis_is_full(backlog, redis_client):
    put(backlog, "a", "a0")
    put(backlog, "a", "a1")
    before = redis_client.config_get("maxmemory")["maxmemory"]
    redis_client.config_set("maxmemory", 1)
    try:
        first = take(backlog).claimed
        backlog.report([end(first)])
        assert backlog.renew([(take(backlog).claimed.entry, "x")], lease=3)
    finally:
        redis_client.config_set("maxmemory", before)
    assert balanced(backlog)["done"] == 1


def test_a_purge_throws_away_what_waits_and_nothing_else(backlog):
    for number in range(3):
        put(backlog, "a", f"a{number}")
    put(backlog, "b", "b0")
    first = take(backlog).claimed
    assert backlog.run("purge", [client_of("a"), 100, Q]) == [b"a1", b"a2"]
    backlog.report([end(first)])
    assert served(backlog, 1) == ["b0"]
    assert balanced(backlog)["purged"] == 2


@pytest.mark.not_on("cluster", reason="KEYS asks one server")
def test_every_key_shares_one_hash_tag(backlog, redis_client):
    put(backlog, "a")
    served(backlog, 1)
    assert {key.split(b"}")[0] for key in redis_client.keys("*")} == {b"{ranch:main"}
