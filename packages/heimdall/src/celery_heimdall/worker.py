"""What heimdall adds to a worker: renewal of what its tasks hold, and the waking of parked ones."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from celery_toolkit_core.keeper import Keeper

from . import admission, waking
from .store import settings_of, stores

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

keeper = Keeper("heimdall-keeper")


class HeimdallStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts with the consumer, and again after each reconnect; ends with the worker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        app = consumer.app
        waking.waker(app).start()
        if not keeper._jobs:
            keeper.every(settings_of(app).lease / 3, lambda: [admission.renew(store) for store in stores(app)])
        keeper.start()
        for name in list(app.amqp.queues.consume_from):
            if not name.endswith(waking.SUFFIX):
                consumer.add_task_queue(name + waking.SUFFIX)


def install(app: Celery) -> None:
    app.steps["consumer"].add(HeimdallStep)
