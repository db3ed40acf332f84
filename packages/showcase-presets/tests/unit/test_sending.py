from __future__ import annotations

import time

from celery.signals import before_task_publish

from celery_showcase_presets import publisher_app


def test_what_is_sent_says_when_and_who_says_it_himself_is_left_alone():
    app = publisher_app(broker="memory://")
    properties, own = {"correlation_id": "1"}, {"timestamp": 1}
    before_task_publish.send(sender="t", headers={}, properties=properties)
    before_task_publish.send(sender="t", headers={}, properties=own)
    assert abs(properties["timestamp"] - time.time()) < 60
    assert isinstance(properties["timestamp"], int)
    assert own == {"timestamp": 1}
    app.close()
