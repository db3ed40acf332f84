"""Replays: the shipped scripts decide, the picture shows the run and nothing else, and nothing is left behind."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from celery_ranch import lru_task
from celery_ranch.application import ranch_of
from celery_ranch.entries import Report
from celery_ranch.pictures import Wait, picture
from celery_ranch.simulation import POLICIES, simulate
from celery_ranch.traces import Arrival, example, read_trace
from celery_toolkit_core.errors import InvalidParameter

SVG = "{http://www.w3.org/2000/svg}"


def waits_of(client, trace, policy, workers=1):
    return simulate(client, "ranch", trace, policy, workers=workers)


def longest(waits, client):
    return max(wait.seconds for wait in waits if wait.client == client)


def test_in_one_line_the_late_wait_for_all_and_by_turns_for_one(redis_client):
    trace = [*[Arrival(0.0, "bulk", 1.0)] * 50, Arrival(0.5, "alice", 1.0)]
    assert longest(waits_of(redis_client, trace, "fifo"), "alice") == 49.5
    assert longest(waits_of(redis_client, trace, "lru"), "alice") == 0.5
    assert redis_client.dbsize() == 0


def test_fair_shares_seconds_where_lru_shares_turns(redis_client):
    trace = [*[Arrival(0.0, "slow", 1.0)] * 60, *[Arrival(0.0, "fast", 0.1)] * 60]

    def last_of_fast(policy):
        return max(wait.began for wait in waits_of(redis_client, trace, policy) if wait.client == "fast")

    assert last_of_fast("lru") > 50
    assert last_of_fast("fair") < 20


def test_weights_of_the_trace_count(redis_client):
    trace = [*[Arrival(0.0, "gold", 1.0, weight=0.5)] * 40, *[Arrival(0.0, "silver", 1.0)] * 40]
    first = [wait.client for wait in waits_of(redis_client, trace, "fair")][:30]
    assert first.count("gold") == pytest.approx(20, abs=1)


def test_all_tasks_run_once_under_every_policy(redis_client):
    trace = example()
    for policy in POLICIES:
        waits = waits_of(redis_client, trace, policy, workers=4)
        assert sorted((wait.client, wait.sent) for wait in waits) == sorted((each.client, each.at) for each in trace)
        assert all(wait.seconds >= 0 for wait in waits)


def test_a_simulation_leaves_the_backlog_alone(app, ranch, redis_client):
    @lru_task(app, shared=False, name="simulation.task")
    def task():
        pass

    task.lru_delay("a")
    before = sorted(redis_client.keys("{ranch*"))
    rows = json.loads(ranch("simulate", "--json", stream="stdout"))
    assert {row["policy"] for row in rows} == set(POLICIES)
    assert sorted(redis_client.keys("{ranch*")) == before


def test_what_ran_can_be_replayed_and_drawn(app, ranch, claim, tmp_path):
    @lru_task(app, shared=False, name="simulation.task")
    def task():
        pass

    for client in ("a", "b", "a"):
        task.lru_delay(client)
    for _ in range(3):
        claimed = claim(app)
        ranch_of(app).backlog.report([Report("end", claimed.entry, claimed.token, "done", "0.25")])
    file, drawn = tmp_path / "trace.jsonl", tmp_path / "waits.svg"
    file.write_text(ranch("trace"))
    trace = read_trace(file.read_text().splitlines())
    assert sorted((each.client, each.seconds) for each in trace) == [("a", 0.25), ("a", 0.25), ("b", 0.25)]
    rows = json.loads(
        ranch("simulate", str(file), "--json", "--workers", "1", "--plot", str(drawn)).partition("drawn")[0]
    )
    assert sum(row["tasks"] for row in rows if row["policy"] == "fair") == 3
    assert len(ET.fromstring(drawn.read_text()).findall(f".//{SVG}g/{SVG}rect")) == 9


def test_a_picture_has_one_bar_for_each_wait_and_shows_no_markup_of_clients():
    runs = {"fifo": [Wait("a", 0.0, 1.0), Wait("<b>", 1.0, 4.0)], "fair": [Wait("a", 0.0, 0.5)]}
    drawn = ET.fromstring(picture("a & b", runs))
    bars = drawn.findall(f".//{SVG}g/{SVG}rect")
    assert len(bars) == 3
    texts = [each.text for each in drawn.iter(f"{SVG}text")]
    assert {"fifo", "fair", "a", "<b>", "a & b", "1 x, median 3.0 s, most 3.0 s"} <= set(texts)
    three_seconds, one, half = (float(bar.get("width")) for bar in bars)
    assert (one, half) == (pytest.approx(three_seconds / 3, abs=0.2), pytest.approx(three_seconds / 6, abs=0.2))


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"at": 0}', '{"at": 0, "client": "", "seconds": 1}', '{"at": 0, "client": "a", "seconds": -1}']
)
def test_a_line_that_is_no_task_is_refused(line):
    with pytest.raises(InvalidParameter):
        read_trace([line])
