"""The lane of one worker: tasks of one key run one at a time and in order, whatever the pool.

It stands at two places in the worker's main process. Where a message arrives it waits until those of its key that came
before it have ended; only then Celery gets to see it. Where a request goes to the pool (the one gate through which a
task leaves a rate limit, a timer or the pool's own queue, too) it is asked once more whether the partition is held.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

from celery.exceptions import TaskRevokedError
from celery.worker import state as worker_state

from celery_toolkit_core.celery.deliveries import Delivery, Follower

from .guard import GuardedPool
from .mark import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from celery_toolkit_core.celery.deliveries import Outcome

    from .guard import Guard
    from .partitions import Partitions

logger = logging.getLogger(__name__)

#: In a delivery's marks: the lane knows it.
IN_LANE = "chain_router_lane"

#: In a task's request: the fence of the partition at the start of the body.
FENCE = "chain_router_fence"

#: The key of messages that their caller has sent to this very partition.
_PINNED = -1


class Entry:
    """One message of a partition, until its task has ended.

    Attributes:
        delivery: The message's way through the worker.
        partition: The partition of its queue.
        queue: That queue, or a companion of it.
        tag: The broker's delivery tag.
        stage: ``waiting`` for its key's turn; ``passed`` to Celery, which may keep it for a rate limit or an ETA;
            ``running``: given to the pool.
        is_cut_off: The connection over which it came is gone; nobody waits for its answer.
        ended: The moment at which its task ended.
    """

    __slots__ = ("delivery", "ended", "go", "has_slot", "is_cut_off", "key", "partition", "queue", "stage", "tag")

    def __init__(self, delivery: Delivery, partition: int, queue: str, key: int | None) -> None:
        self.delivery = delivery
        self.partition = partition
        self.queue = queue
        self.tag: Any = delivery.message.delivery_tag
        self.key = None if key is None else (partition, key)
        self.stage: Literal["waiting", "passed", "running"] = "waiting"
        self.has_slot = False
        self.is_cut_off = False
        self.ended = 0.0
        self.go: Callable[[], Any] = delivery.hand_over


class Lane(Follower):
    """What this process has in hand of its partitions, and whose turn it is.

    Args:
        partitions: The queues.
        fence: Partition -> its fence while this process certainly holds it, else ``None``.
        guard: Partition -> what tells at the start of a body, maybe in a child, whether it is held still.
        slots: Tells how many tasks the pool can run at a time.
    """

    def __init__(
        self,
        partitions: Partitions,
        fence: Callable[[int], int | None],
        guard: Callable[[int], Guard],
        slots: Callable[[], int],
    ) -> None:
        self._partitions = partitions
        self._fence = fence
        self._guard = guard
        self._slots = slots
        # By delivery tag, in the order of arrival.
        self._entries: dict[Any, Entry] = {}
        # Key -> those of it that have asked for a turn; the first one has it.
        self._turns: dict[tuple[int, int], deque[Entry]] = {}
        # They have their turn and wait for a place in the pool.
        self._ready: deque[Entry] = deque()
        self._used = 0
        # Ended, but the acknowledgement has not gone out yet.
        self._ending: dict[Any, Entry] = {}
        #: The worker's consumer.
        self.consumer: Any = None
        # Threads of a pool tell the ends.
        self._lock = RLock()
        self._is_pumping = False
        self._is_closed = False

    def wrap_strategy(self, strategy: Callable[..., Any]) -> Callable[..., Any]:
        """The strategy of a task, behind the lane."""

        def in_lane(message: Any, payload: Any, ack: Any, reject: Any, callbacks: Any, **extra: Any) -> Any:
            delivery = Delivery.of(message)
            if not self._is_for_us(message) or (delivery is not None and IN_LANE in delivery.marks):
                return strategy(message, payload, ack, reject, callbacks, **extra)
            return self._arrive(delivery or Delivery(message, payload, ack, reject, callbacks, self.consumer))

        return in_lane

    def _is_for_us(self, message: Any) -> bool:
        # Most messages of a worker may be of other queues: no more than this for them.
        where = (message.delivery_info or {}).get("routing_key")
        # Message protocol 1 has neither header.
        return f"{self._partitions.prefix}." in str(where) and "task" in message.headers and "id" in message.headers

    def _arrive(self, delivery: Delivery) -> None:
        delivery.marks.add(IN_LANE)
        queue = delivery.queue
        number = self._partitions.number(queue)
        if number is None:
            delivery.hand_over()
            return
        mark = Mark.read(delivery.message.headers)
        key = None if mark is None else _PINNED if mark.key is None else mark.key
        entry = Entry(delivery, number, queue, key)
        delivery.follow(self)
        with self._lock:
            # A strategy may hand on another message in the place of the one that came: from now on it is that one.
            replaced = self._entries.get(entry.tag)
            if replaced is not None:
                self._remove(replaced)
            self._entries[entry.tag] = entry
        if delivery.message.headers.get("eta") and self._fence(number) is not None:
            # An ETA is no place in a queue: it takes its turn when it is due.
            entry.stage = "passed"
            entry.go()
        else:
            self._queue_up(entry)

    def wrap_task_request(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What gives requests to the pool, behind the lane."""

        def through_lane(request: Any) -> Any:
            if request.__dict__.get("_taken_back"):
                _forget(request)
                return None
            entry = self._entry_of(request)
            if entry is None:
                return forward(request)
            request.execute_using_pool = lambda pool, **options: self._execute(entry, request, forward, pool, options)
            if entry.has_slot:
                return forward(request)
            entry.stage, entry.go = "waiting", lambda: forward(request)
            self._queue_up(entry)
            return None

        return through_lane

    def resume(self) -> None:
        """Start whatever may start now."""
        self._pump()

    def take_back(self, partitions: Collection[int] | None = None) -> list[Entry]:
        """Take what has not started out of this worker's hands, in the order of arrival; of all partitions by default.

        The caller brings it back to its queue.
        """
        taken = []
        with self._lock:
            for entry in list(self._entries.values()):
                if entry.stage != "running" and (partitions is None or entry.partition in partitions):
                    self._remove(entry)
                    taken.append(entry)
        for entry in taken:
            request = entry.delivery.request
            if request is not None:
                _take_out_of_celery(request, entry.delivery.consumer)
            entry.delivery.end("requeued")
        return taken

    def take_all(self) -> list[Entry]:
        """Everything that is not acknowledged, in the order of arrival, when nothing runs any more."""
        with self._lock:
            self._settle()
            left = [*self._ending.values(), *self._entries.values()]
            self._entries.clear()
            self._ending.clear()
            self._turns.clear()
            self._ready.clear()
        return left

    def take_unanswered(self, seconds: float) -> list[Entry]:
        """What ended longer ago than so many seconds without having been acknowledged or rejected."""
        now = time.monotonic()
        with self._lock:
            self._settle()
            found = [entry for entry in self._ending.values() if now - entry.ended > seconds]
            for entry in found:
                del self._ending[entry.tag]
        return found

    def close(self) -> None:
        """Start nothing any more."""
        self._is_closed = True

    def sent(self) -> list[Entry]:
        """What was given to a pool of processes, and no child has said to have accepted."""
        with self._lock:
            return [
                entry for entry in self._entries.values() if entry.stage == "running" and entry.delivery.pid is None
            ]

    def unsent(self, entries: Collection[Entry]) -> None:
        """The pool has dropped these."""
        for entry in entries:
            entry.stage = "passed"

    def cut_off(self) -> None:
        """The connection over which all of it came is gone, and the broker delivers it again."""
        with self._lock:
            for entry in self._entries.values():
                entry.is_cut_off = True
            self._ending.clear()

    def has_in_hand(self, partition: int) -> bool:
        """Whether a body of this partition runs, or the broker has not heard yet how one ended."""
        with self._lock:
            self._settle()
            return any(entry.partition == partition for entry in (*self._entries.values(), *self._ending.values()))

    def partitions_in_hand(self) -> set[int]:
        """The partitions of all that has not ended."""
        with self._lock:
            return {entry.partition for entry in self._entries.values()}

    @property
    def tags(self) -> set[Any]:
        """The delivery tags of all that is in hand."""
        with self._lock:
            return {*self._entries, *self._ending}

    @property
    def occupied(self) -> int:
        """How many messages are with the pool, or next."""
        return self._used + len(self._ready)

    def held_back(self) -> Counter[int]:
        """Partition -> how many of its messages wait for their key's turn."""
        waiting: Counter[int] = Counter()
        with self._lock:
            for (partition, _), turns in self._turns.items():
                waiting[partition] += len(turns) - 1
        return waiting

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """The next one of that key has its turn."""
        self._leave(delivery)

    def handed_back(self, delivery: Delivery) -> None:
        """Likewise: another package has taken it, and brings it back as a new message."""
        self._leave(delivery)

    def _queue_up(self, entry: Entry) -> None:
        with self._lock:
            # What has no key has no order: it is its own turn.
            turns = deque([entry]) if entry.key is None else self._turns.setdefault(entry.key, deque())
            if entry.key is not None:
                turns.append(entry)
            if turns[0] is entry:
                self._ready.append(entry)
        self._pump()

    def _pump(self) -> None:
        """Let go whoever can go; one thread at a time, and not once more from inside (the solo pool runs bodies in)."""
        while True:
            with self._lock:
                if self._is_pumping:
                    return
                entry = self._next()
                if entry is None:
                    return
                self._is_pumping = True
            try:
                entry.go()
            except Exception:
                # Celery's own strategy failed, with the broker's connection mostly: the message stays unanswered.
                entry.delivery.end("requeued")
                raise
            finally:
                self._is_pumping = False

    def _next(self) -> Entry | None:
        for entry in self._ready:
            if self._is_closed or self._used >= self._slots():
                return None
            if self._fence(entry.partition) is not None:
                self._ready.remove(entry)
                entry.has_slot, entry.stage = True, "passed"
                self._used += 1
                return entry
        return None

    def _execute(self, entry: Entry, request: Any, forward: Callable[[Any], Any], pool: Any, options: Any) -> Any:
        """The last moment before the pool has it."""
        fence = self._fence(entry.partition)
        if fence is None or request.__dict__.get("_taken_back"):
            with self._lock:
                if self._entries.get(entry.tag) is entry:
                    # The lease may have ended: it waits, at the front, until that is known.
                    self._free(entry)
                    entry.stage, entry.go = "waiting", lambda: _reserve(request, forward)
                    self._ready.appendleft(entry)
            _forget(request)
            # The one exception that makes Celery's worker give the place in the pool to somebody else.
            raise TaskRevokedError(request.id)
        entry.stage = "running"
        request.request_dict[FENCE] = fence
        if request.task.acks_late:
            pool = GuardedPool(pool, self._guard(entry.partition))
        # else it is acknowledged as it starts: to refuse it then would be to lose it.
        return type(request).execute_using_pool(request, pool, **options)

    def _entry_of(self, request: Any) -> Entry | None:
        delivery = request.__dict__.get("_delivery")
        if delivery is None:
            return None
        with self._lock:
            entry = self._entries.get(delivery.message.delivery_tag)
        return entry if entry is not None and entry.delivery is delivery else None

    def _leave(self, delivery: Delivery) -> None:
        with self._lock:
            entry = self._entries.get(delivery.message.delivery_tag)
            if entry is None or entry.delivery is not delivery:
                return
            self._remove(entry)
            entry.ended = time.monotonic()
            if not entry.is_cut_off:
                self._ending[entry.tag] = entry
            self._settle()
        self._pump()

    def _remove(self, entry: Entry) -> None:
        self._entries.pop(entry.tag, None)
        if entry in self._ready:
            self._ready.remove(entry)
        self._free(entry)
        turns = self._turns.get(entry.key) if entry.key is not None else None
        if turns and entry in turns:
            was_first = turns[0] is entry
            turns.remove(entry)
            if turns and was_first:
                self._ready.append(turns[0])
            if not turns:
                del self._turns[entry.key]  # type: ignore[arg-type]  # there are turns only where there is a key

    def _free(self, entry: Entry) -> None:
        if entry.has_slot:
            entry.has_slot = False
            self._used -= 1

    def _settle(self) -> None:
        for tag, entry in list(self._ending.items()):
            if entry.delivery.message.acknowledged:
                del self._ending[tag]


def _take_out_of_celery(request: Any, consumer: Any) -> None:
    """Make Celery forget a request that waits for its ETA, for a rate limit or for the pool."""
    request.__dict__["_taken_back"] = True
    timer_entry = getattr(request, "_eta_timer_entry", None)
    if timer_entry is not None and request in getattr(worker_state, "scheduled_requests", ()):
        consumer.timer.cancel(timer_entry)
        # The strategy had made room for it.
        consumer.qos.decrement_eventually()
    _forget(request)


def _reserve(request: Any, forward: Callable[[Any], Any]) -> None:
    worker_state.task_reserved(request)
    forward(request)


def _forget(request: Any) -> None:
    worker_state.requests.pop(request.id, None)
    worker_state.reserved_requests.discard(request)
    if hasattr(worker_state, "scheduled_requests"):  # from Celery 5.6 on
        worker_state.scheduled_requests.discard(request)
