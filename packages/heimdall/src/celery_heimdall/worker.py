"""What heimdall adds to a worker: renewal of what its tasks hold, and the waking of parked ones."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool
from celery.signals import celeryd_after_setup

from celery_toolkit_core.celery import worker
from celery_toolkit_core.connection import server_name, warn_if_evicting
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.log import event

from . import visits, waking
from .listening import listener
from .options import is_option
from .store import all_stores, settings_of, stores

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)


class HeimdallStep(worker.WorkerStep):
    """Renews what this worker's tasks hold, and brings parked tasks back through the queues that it consumes."""

    prefix = "heimdall"
    replaces = ("celery-toolkit-heimdall", "celery-heimdall")

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Let the worker consume, beside each queue, the one through which its woken tasks come back.

        Here, because the consumer starts with all that is selected by then. A queue that is added later gets its own
        with its first message, in the gate.
        """
        super().__init__(consumer, **options)
        queues = consumer.app.amqp.queues
        for name in tuple(queues.consume_from):
            woken = f"{name}{waking.SUFFIX}"
            if not name.endswith(waking.SUFFIX) and woken not in queues.consume_from:
                queues.select_add(woken, exchange=woken, exchange_type="direct", routing_key=woken)

    def prepare(self, consumer: Any) -> None:
        """Give the keeper its job and start the waker."""
        app = consumer.app
        end_body = getattr(consumer.pool.terminate_job, "__func__", None)
        if settings_of(app).on_lock_lost == "abort" and end_body is BasePool.terminate_job:
            pool = type(consumer.pool).__module__.rpartition(".")[2]
            raise InvalidParameter("heimdall_on_lock_lost", "abort", f"the pool {pool} cannot end a body; use prefork")
        for store in all_stores(app):
            warn_if_evicting(store.client, logger)
            where = {"redis": server_name(store.client), "namespace": settings_of(app).namespace}
            event(logger, logging.INFO, "heimdall_ready", **where)
        self.keeper.every(settings_of(app).lease / 3, lambda: _renew(app))
        listener.start(app, self.keeper)
        waking.waker(app).start()

    def finish(self, consumer: Any) -> None:
        """Hear what became of what was given back, and leave the waking to other workers."""
        listener.stop(consumer.app)
        waking.waker(consumer.app).stop()


def install(app: Celery) -> None:
    """Let the workers of the application run the step."""
    worker.install(app, HeimdallStep)


@celeryd_after_setup.connect(weak=False)
def warn_of_missing_bases(instance: Any, **_: Any) -> None:
    """Warn of each task that has options for us and not our base: Celery takes any option, and nothing would happen."""
    for task in instance.app.tasks.values():
        if hasattr(task, "heimdall_config"):
            continue
        given = [name for name in ("unique", "limits") if is_option(getattr(task, name, None))]
        if isinstance(getattr(task, "heimdall", None), dict):
            given.append("heimdall")
        for option in given:
            fields = {"task": task.name, "option": option, "needs_base": "HeimdallTask"}
            event(logger, logging.WARNING, "option_without_effect", **fields)


def _renew(app: Celery) -> None:
    for store in stores(app):
        visits.renew(store)
