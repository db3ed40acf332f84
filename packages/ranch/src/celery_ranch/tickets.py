"""Tickets in a worker: each claims the fairest task that waits in its queue, at the moment when it is received."""

from __future__ import annotations

import logging
import math
from os import urandom
from typing import TYPE_CHECKING, Any

from celery import Task
from kombu.utils import json

from celery_toolkit_core.celery.deliveries import Delivery
from celery_toolkit_core.celery.messages import StoredMessage
from celery_toolkit_core.errors import InvalidParameter, Quarantined
from celery_toolkit_core.log import event

from .application import Address, ranch_of
from .claims import Settler, quarantine
from .entries import Report
from .options import check_weight
from .signals import task_claimed
from .ticket_office import QUEUE_HEADER, TICKET
from .utils.lru_tracker import LRUKeyMetadata
from .worker import claims_of

if TYPE_CHECKING:
    from celery import Celery
    from kombu.message import Message

    from .claims import Claims
    from .entries import Claimed
    from .options import WeightFunction

logger = logging.getLogger(__name__)

#: The mark on a delivery that it was claimed: its turn has come.
CLAIMED = "celery_ranch.claimed"

#: Seconds until a ticket goes back to the broker when Redis does not answer.
RETURN_DELAY = 1.0

if TYPE_CHECKING:
    _Task = Task[Any, Any]  # generic in the stubs only
else:
    _Task = Task


class TicketTask(_Task):
    """The task that tickets name. It has no body: its strategy does everything, in the worker's main process."""

    name = TICKET
    ignore_result = True

    def run(self) -> None:
        """Never called."""
        raise NotImplementedError("a ticket is taken by its strategy")

    def start_strategy(self, app: Celery, consumer: Any, **options: Any) -> Any:
        """What Celery calls for each received ticket."""
        return TicketStrategy(app, consumer)


class TicketStrategy:
    """Takes tickets.

    Args:
        app: The application.
        consumer: The worker's consumer.
    """

    def __init__(self, app: Celery, consumer: Any) -> None:
        self._app = app
        self._consumer = consumer
        self._claims: Claims = claims_of(ranch_of(app))
        self._complained: set[str] = set()

    def __call__(self, message: Message, payload: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> None:
        """Claim for one ticket and hand the claimed task to the strategy of its own task."""
        consumer = self._consumer
        try:
            answer = self._claims.claim(
                str(message.headers[QUEUE_HEADER]), str(message.headers["id"]), urandom(16).hex()
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the worker lives and the ticket waits
            event(logger, logging.ERROR, "claim_failed", error=repr(error))
            consumer.timer.call_after(RETURN_DELAY, reject, (logger, consumer.connection_errors, True))
            return
        claimed = answer.claimed
        if claimed is None:
            ack(logger, consumer.connection_errors)
            return
        try:
            stored = StoredMessage.from_bytes(claimed.message)
        except Quarantined as error:
            event(logger, logging.ERROR, "task_quarantined", entry=claimed.entry, reason=error.reason)
            quarantine(self._claims, claimed)
            ack(logger, consumer.connection_errors)
            return
        task: Any = self._app.tasks.get(stored.task_name)
        self._announce(stored, claimed)
        if claimed.weighed and task is not None:
            self._weigh(task, claimed)
        delivery = Delivery(stored.rebuild(message), None, ack, reject, callbacks, consumer)
        delivery.marks.add(CLAIMED)
        delivery.follow(Settler(self._claims, claimed, early=task is not None and not task.acks_late))
        delivery.hand_over()

    def _announce(self, stored: StoredMessage, claimed: Claimed) -> None:
        if not task_claimed.receivers:
            return  # what it says costs more than it is worth to nobody
        task_claimed.send(
            sender=stored.task_name,
            task_id=stored.task_id,
            lru_key=claimed.label,
            queue=Address(stored.exchange, stored.routing_key).name(self._app),
            waited=claimed.waited,
        )

    def _weigh(self, task: Any, claimed: Claimed) -> None:
        function: WeightFunction | None = task.ranch_options.weight_function
        if function is None:
            return
        profile = json.loads(claimed.profile) if claimed.profile else {}
        metadata = LRUKeyMetadata(
            timestamp=claimed.served_before,
            weight=claimed.weight,
            tags=profile.get("tags") or None,
            custom_data=profile.get("custom_data") or None,
        )
        weight, failed = claimed.weight, ""
        try:
            weight = check_weight("weight", _number(function(claimed.label, metadata)))
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything; the static weight stands in
            failed = "1"
            if task.name not in self._complained:
                self._complained.add(task.name)
                event(logger, logging.WARNING, "weight_function_failed", task=task.name, error=repr(error))
        self._claims.report(Report("weigh", claimed.entry, claimed.token, repr(weight), failed))


def _number(value: Any) -> float:
    """What a weight function returned; numpy's and other numbers are welcome."""
    if isinstance(value, (bool, str)) or value is None:
        raise InvalidParameter("weight", value, "return a number above 0")
    number = float(value)
    if not math.isfinite(number):
        raise InvalidParameter("weight", value, "return a finite number above 0")
    return number
