"""The event log: each event once, whole, in the order of writing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_toolkit_testkit import EventLog, log_event
from celery_toolkit_testkit.events import PATH_VARIABLE


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "events"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return EventLog(path)


def test_it_grows_between_two_looks(log):
    assert log.events() == []
    log_event(what="start", number=1)
    assert [event["number"] for event in log.events()] == [1]
    log_event(what="end", number=1)
    log_event(what="start", number=2)
    assert [(event["what"], event["number"]) for event in log.events()] == [("start", 1), ("end", 1), ("start", 2)]
    assert [event["number"] for event in log.events(what="start")] == [1, 2]


def test_half_a_line_waits_for_its_other_half(log):
    log_event(number=1)
    with log.path.open("ab") as file:
        file.write(b'{"numb')
        file.flush()
        assert len(log.events()) == 1
        file.write(b'er": 2}\n')
    assert [event["number"] for event in log.events()] == [1, 2]


def test_two_threads_that_look_see_each_event_once(log):
    def look(_):
        log_event(number=0)
        return log.events()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(400)))
    assert len(log.events()) == 400
