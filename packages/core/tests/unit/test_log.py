"""Log events: one line, the fields beside it, hooks told."""

from __future__ import annotations

import logging

import pytest

from celery_toolkit_core import log

logger = logging.getLogger("test.events")


@pytest.fixture
def hook():
    seen = []
    remove = log.add_hook(lambda name, fields: seen.append((name, fields)))
    yield seen
    remove()


def test_one_line_and_the_fields_as_attributes(caplog):
    with caplog.at_level(logging.INFO):
        log.event(logger, logging.INFO, "lease_lost", task="a.b", fence=3, waited=0.12345678)
    (record,) = caplog.records
    assert record.getMessage() == "lease_lost task=a.b fence=3 waited=0.123457"
    assert (record.event, record.task, record.fence) == ("lease_lost", "a.b", 3)
    assert record.filename == "test_log.py"


def test_foreign_text_stays_within_its_field_and_line(caplog):
    with caplog.at_level(logging.INFO):
        log.event(logger, logging.INFO, "odd", label="a b\nforged line=1 %s", empty="")
    assert caplog.records[0].getMessage() == r"odd label='a b\nforged line=1 %s' empty=''"


def test_names_that_logging_keeps_for_itself_get_an_underscore(caplog):
    with caplog.at_level(logging.INFO):
        log.event(logger, logging.INFO, "odd", args=1, msg=2, event=3, message=4)
    record = caplog.records[0]
    assert (record.args_, record.msg_, record.event_, record.message_, record.event) == (1, 2, 3, 4, "odd")


def test_hooks_hear_events_below_the_level(caplog, hook):
    with caplog.at_level(logging.ERROR):
        log.event(logger, logging.DEBUG, "granted", cost=1)
    assert hook == [("granted", {"cost": 1})]
    assert not caplog.records


def test_a_hook_that_fails_changes_nothing(caplog, hook):
    def broken(name, fields):
        fields.clear()
        raise RuntimeError("hook")

    remove = log.add_hook(broken)
    log.event(logger, logging.INFO, "granted", cost=1)
    remove()
    log.event(logger, logging.INFO, "granted", cost=2)
    assert hook == [("granted", {"cost": 1}), ("granted", {"cost": 2})]
    assert [record.name for record in caplog.records if record.exc_info] == ["celery_toolkit_core.log"]
