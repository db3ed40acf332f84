"""What the configuration of an application says to all packages."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_toolkit_core.celery.configuration import redis_url_of
from celery_toolkit_core.errors import ToolkitError


def test_the_packages_own_setting_goes_before_the_broker():
    app = Celery("configured", broker="redis://broker/0", set_as_current=False)
    assert redis_url_of(app, "ranch") == "redis://broker/0"
    app.conf.ranch_redis_url = "redis://own/1"
    assert redis_url_of(app, "ranch") == "redis://own/1"
    assert redis_url_of(app, "heimdall") == "redis://broker/0"


def test_the_variables_that_celery_reads_count(monkeypatch):
    """``app.conf.get`` does not see them."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://variable/3")
    assert redis_url_of(Celery("variable", set_as_current=False), "ranch") == "redis://variable/3"


def test_no_redis_at_all_is_an_error_that_names_the_setting():
    app = Celery("none", broker="amqp://", set_as_current=False)
    with pytest.raises(ToolkitError, match="set ranch_redis_url"):
        redis_url_of(app, "ranch")
