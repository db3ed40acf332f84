"""One message on its way through a worker's main process: who may hold it up, and who is told how it ends.

A *gate* stands between the received message and Celery's own strategy: it lets the message proceed, or takes it from
the worker. A *follower* is told, in the main process and whatever the pool, when the body starts and how the task
ends. Both meet in the `Delivery`. The picture is in ``docs/design/worker.md``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import InvalidTaskError
from kombu.exceptions import ContentDisallowed, DecodeError

from .gates import CONTROL, TURN, Follower, Gate
from .messages import StoredMessage, undelayed
from .outcomes import Answer, Outcome, followed, is_past

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kombu.message import Message

__all__ = [
    "CONTROL",
    "TURN",
    "Delivery",
    "Follower",
    "Gate",
    "Outcome",
    "end_all",
    "forget_dropped",
    "open_deliveries",
]

logger = logging.getLogger(__name__)

#: Seconds for which a message is kept before it is given back to the broker when a gate has failed. It bounds how fast
#: a lasting fault (Redis away) can go round: at most the prefetch count per this many seconds.
RETURN_DELAY = 1.0

# The ends of a body that nobody has killed.
_BY_ITSELF: tuple[Outcome, ...] = ("success", "failure", "retry", "ignored")

_KEY = "_celery_toolkit_delivery"

# The deliveries of this process that have not ended. Leaving it is what makes an end happen exactly once: with thread
# pools two threads may come to the same end, and `set.remove` lets one of them through.
_open: set[Delivery] = set()


def open_deliveries() -> tuple[Delivery, ...]:
    """The deliveries that have neither ended nor been handed back in this process."""
    return tuple(_open.copy())  # copied in one step: other threads end deliveries meanwhile


class Delivery:
    """One received message, until the task that it starts has ended.

    Args:
        message: The message; for work that rides on another message, what `StoredMessage.rebuild` made.
        payload: Its decoded payload where Celery has one already, else ``None``.
        ack: Acknowledges what the broker delivered.
        reject: Rejects it.
        callbacks: What Celery calls with the request.
        consumer: The worker's consumer.

    Attributes:
        request: Celery's request, from the moment the task is received until it has ended.
        pid: The process that runs the body, once it has started.
        runtime: Seconds that the body took, known when it has returned or raised.
        error: What the child reported of an exception: `exception`, and `traceback` as text.
        why: The word with which it was handed back.
        marks: What gates and strategies of this process want to tell each other; never leaves the process.
    """

    def __init__(
        self,
        message: Message,
        payload: Any,
        ack: Callable[..., Any],
        reject: Callable[..., Any],
        callbacks: Any,
        consumer: Any,
    ) -> None:
        self.message = message
        self.payload = payload
        self.callbacks = callbacks
        self.consumer = consumer
        self.request: Any = None
        self.pid: int | None = None
        self.runtime: float | None = None
        self.error: Any = None
        self.why = ""
        self.marks: set[str] = set()
        self._ack = ack
        self._reject = reject
        self._followers: list[Follower] = []
        self._stored: StoredMessage | None = None
        self._job: Any = None
        self._with_celery = False
        self._presumed: Outcome | None = None
        self._celery_error: BaseException | None = None
        message.__dict__[_KEY] = self
        _open.add(self)

    @classmethod
    def of(cls, message: Message) -> Delivery | None:
        """The open delivery that this message belongs to."""
        return message.__dict__.get(_KEY)

    @staticmethod
    def of_request(request: Any) -> Delivery | None:
        """The delivery of a request of Celery's, ended or not; None for a task without gates."""
        delivery: Delivery | None = request.__dict__.get("_delivery")
        return delivery

    @property
    def stored(self) -> StoredMessage:
        """The message as it can be kept, captured at the first use."""
        if self._stored is None:
            self._stored = StoredMessage.capture(self.message)
        return self._stored

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return str(self.message.headers["id"])

    @property
    def task_name(self) -> str:
        """The registered name of the task."""
        return str(self.message.headers["task"])

    @property
    def queue(self) -> str:
        """The queue that the message came from, as far as the message tells.

        With the default exchange that is the routing key. With another one it is the queue of this worker that has this
        exchange and routing key, else again the routing key; where RabbitMQ delayed the message, the one it was meant
        to have.
        """
        where = self.message.delivery_info or {}
        exchange, routing_key = where.get("exchange") or "", str(where.get("routing_key") or "")
        meant = undelayed(routing_key)
        if exchange:
            for queue in self.consumer.app.amqp.queues.consume_from.values():
                if queue.routing_key == meant and (queue.exchange.name == exchange or meant != routing_key):
                    return str(queue.name)
        return meant

    @property
    def ack(self) -> Callable[..., Any]:
        """Acknowledges what the broker delivered, and notes the end where Celery has no request for it yet."""
        return Answer(self._ack, self._acknowledged)

    @property
    def reject(self) -> Callable[..., Any]:
        """Rejects what the broker delivered, and notes the end where Celery has no request for it yet."""
        return Answer(self._reject, self._rejected)

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of everything that happens from now on; followers are told in the order of their coming."""
        self._followers.append(follower)

    def hand_back(self, why: str = "") -> None:
        """The message was taken without having run: tell the followers, then acknowledge what the broker delivered.

        Args:
            why: A word for people and for other controls: ``limited``, ``locked``; ``ended`` if it does not come again.
        """
        if self._leave():
            self.why = why
            self._tell("handed_back")
            self._close()
            self._ack(logger, self.consumer.connection_errors)

    def hand_over(self) -> None:
        """Give the message to the strategy of its task, as the consumer does with what it receives.

        For a strategy that hands a *different* message on than the one that it was called with.
        """
        consumer = self.consumer
        strategy = consumer.strategies.get(self.task_name)
        if strategy is None:
            consumer.on_unknown_task(None, self.message, KeyError(self.task_name))
            self.end("unknown")
            return
        try:
            strategy(self.message, self.payload, self.ack, self.reject, self.callbacks)
        except (InvalidTaskError, ContentDisallowed) as error:
            consumer.on_invalid_task(self.payload, self.message, error)
            self.end("rejected")
        except DecodeError as error:
            consumer.on_decode_error(self.message, error)
            self.end("rejected")

    def pass_gates(self, gates: Sequence[Gate], strategy: Callable[..., Any]) -> None:
        """Lead the message through the gates and then to Celery's strategy."""

        def proceed_from(index: int) -> None:
            if index < len(gates):
                gates[index](self, lambda: proceed_from(index + 1))
            elif self._with_celery:
                raise RuntimeError(f"a gate of {self.task_name} let the message proceed twice")
            else:
                self._start(strategy)

        try:
            proceed_from(0)
        except Exception as error:
            if error is self._celery_error:
                raise  # Not the gates' doing: Celery's consumer knows what to do.
            logger.exception("A gate failed for task %s[%s]", self.task_name, self.task_id)
            if not self._with_celery:
                self._return_later()
        else:
            if not self._with_celery and self in _open:
                logger.error("A gate kept task %s[%s] without handing it back", self.task_name, self.task_id)
                self._return_later()

    def accept(self, pid: int) -> None:
        """Tell the followers that the body starts in the process `pid`."""
        if self in _open:
            self.pid = pid
            self.keep_job()
            self._tell("accepted", pid)

    def keep_job(self) -> None:
        """Hold the pool's job of the body, which outlives a reconnect by that; a request holds it weakly."""
        job = self.request and self.request._apply_result
        self._job = job() if job is not None else None

    def end(self, outcome: Outcome) -> None:
        """Tell the followers how it ended; what comes after the first end is ignored."""
        if self._leave():
            if self._presumed and outcome not in _BY_ITSELF:
                outcome = self._presumed
            self._tell("ended", outcome)
            self._close()

    def presume(self, outcome: Outcome) -> None:
        """It ends so, unless the body turns out to have ended by itself before; told at the next occasion."""
        self._presumed = outcome

    def _start(self, strategy: Callable[..., Any]) -> None:
        self._with_celery = True
        try:
            strategy(self.message, self.payload, self.ack, self.reject, self.callbacks)
        except Exception as error:
            self._celery_error = error
            if isinstance(error, (InvalidTaskError, ContentDisallowed, DecodeError)):
                self.end("rejected")
            # After any other error Celery's consumer starts anew, or the worker ends: `forget_dropped` and the
            # follower's own lease see to the rest.
            raise

    def _return_later(self) -> None:
        self.consumer.timer.call_after(RETURN_DELAY, self._return)

    def _return(self) -> None:
        # After a reconnect in between the broker has the message already, and its tag means nothing any more.
        if self in _open:
            self.reject(logger, self.consumer.connection_errors, True)

    def _acknowledged(self, *_: Any) -> None:
        # Once there is a request, its own hooks tell the end. Before that Celery acknowledges only what it has found
        # revoked or expired.
        if self.request is None and self in _open:
            self.end("expired" if is_past(self.message.headers.get("expires"), self.consumer.app) else "revoked")

    def _rejected(self, _logger: Any, _errors: Any, requeue: bool = False) -> None:
        if self.request is None:
            self.end("requeued" if requeue else "rejected")

    def _leave(self) -> bool:
        try:
            _open.remove(self)
        except KeyError:
            return False
        return True

    def _tell(self, what: str, *args: Any) -> None:
        for follower in self._followers:
            try:
                getattr(follower, what)(self, *args)
            except Exception:
                logger.exception("A follower failed when task %s[%s] %s", self.task_name, self.task_id, what)

    def _close(self) -> None:
        # Breaks the circles over the message and the request: no work for the collector.
        self.message.__dict__.pop(_KEY, None)
        self.request = self._job = None


def forget_dropped(consumer: Any) -> None:
    """End the deliveries that Celery dropped with a broken connection: the broker will deliver them again.

    Called at each start of a consumer. A body that has started, or will because the pool has the job, goes on.
    """
    if consumer.restart_count <= 0:
        return
    # The prefork pool drops what no child has accepted yet; other pools run whatever they were given.
    prefork = consumer.pool.uses_semaphore
    for delivery in open_deliveries():
        if delivery._presumed:
            delivery.end(delivery._presumed)
        elif delivery.pid is None:
            given = delivery.request is not None and delivery.request._apply_result is not None
            if prefork or not given:
                delivery.end("requeued")
        elif prefork and delivery._job is not None:
            # Seen in Celery 5.5: the pool forgets the bodies that run too, and nobody would hear of their end.
            consumer.pool._pool._cache.setdefault(delivery._job._job, delivery._job)


def end_all() -> None:
    """End what is left when the pool has ended, at a shutdown.

    What is not acknowledged goes back to the broker; a body killed by a cold shutdown after an early acknowledgement is
    lost.
    """
    for delivery in open_deliveries():
        request = delivery.request
        delivery.end("lost" if request is not None and request.acknowledged else "requeued")


@signals.worker_shutdown.connect(weak=False, dispatch_uid=_KEY)
def _end_all(**_: Any) -> None:
    # For workers without a `WorkerStep`, which comes earlier.
    end_all()


@signals.task_received.connect(weak=False, dispatch_uid=_KEY)
def _bind(request: Any = None, **_: Any) -> None:
    delivery = Delivery.of(request._message)
    if delivery is not None:
        delivery.request = request
        request._delivery = delivery
        request.__class__ = followed(type(request))
