"""The lane of one worker: tasks of one key run one at a time and in order, whatever the pool.

It stands at two places in the worker's main process. Where a message arrives it waits until those of its key that came
before it have ended; only then Celery gets to see it. Where a request goes to the pool (the one gate through which a
task leaves a rate limit or a timer, too) it waits for a place there, and is asked whether the partition is still held.
"""

from __future__ import annotations

import time
from collections import Counter
from threading import RLock
from typing import TYPE_CHECKING, Any

from celery.exceptions import TaskRevokedError
from celery.worker import state

from celery_toolkit_core.celery.deliveries import Delivery, Follower

from .entry import Entry, forget, is_taken_back, take_back
from .mark import Mark
from .turns import Places, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from celery_toolkit_core.celery.deliveries import Outcome

    from .guard import Gatehouse, Guard
    from .partitions import Partitions

#: In a delivery's marks: the lane knows it.
IN_LANE = "chain_router_lane"

#: In a task's request: the fence of the partition at the start of the body.
FENCE = "chain_router_fence"

#: The key of messages that their caller has sent to this very partition.
_PINNED = -1


class Lane(Follower):
    """What this process has in hand of its partitions, and whose turn it is.

    Args:
        partitions: The queues.
        fence: Partition -> its fence while this process certainly holds it, else ``None``.
        guard: Partition -> what tells at the start of a body, maybe in a child, whether it is held still.
        gatehouse: Asks such guards.
        places: Tells how many tasks the pool can run at a time.
    """

    def __init__(
        self,
        partitions: Partitions,
        fence: Callable[[int], int | None],
        guard: Callable[[int], Guard],
        gatehouse: Gatehouse,
        places: Callable[[], int],
    ) -> None:
        self._partitions = partitions
        self._fence = fence
        self._guard = guard
        self._gatehouse = gatehouse
        self._most = places
        self._turns = Turns()
        self._places = Places()
        # By delivery tag, in the order of arrival.
        self._entries: dict[Any, Entry] = {}
        # How many of them each partition has, and how many of them wait for an ETA.
        self._count: Counter[int] = Counter()
        self._etas = 0
        # Ended, but the acknowledgement has not gone out yet.
        self._ending: dict[Any, Entry] = {}
        #: The worker's consumer.
        self.consumer: Any = None
        # Threads of a pool tell the ends.
        self._lock = RLock()
        self._is_letting_go = False
        self._is_closed = False

    def wrap_strategy(self, strategy: Callable[..., Any]) -> Callable[..., Any]:
        """The strategy of a task, behind the lane."""

        def in_lane(message: Any, payload: Any, ack: Any, reject: Any, callbacks: Any, **extra: Any) -> Any:
            delivery = Delivery.of(message)
            if not self._is_for_us(message) or (delivery is not None and IN_LANE in delivery.marks):
                return strategy(message, payload, ack, reject, callbacks, **extra)
            if getattr(message, "is_answered_at_once", False):
                # Celery's own answers wait for the next turn of the event loop. By then the child may have begun
                # another body, and a freeze in between would make this one run again, too.
                ack, reject = message.ack_log_error, message.reject_log_error
            return self._arrive(delivery or Delivery(message, payload, ack, reject, callbacks, self.consumer))

        return in_lane

    def wrap_task_request(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What gives requests to the pool, behind the lane."""

        def through_lane(request: Any) -> Any:
            if is_taken_back(request):
                forget(request)
                return None
            entry = self._entry_of(Delivery.of_request(request))
            if entry is None:
                return forward(request)

            def go() -> None:
                state.task_reserved(request)  # once more: it may have been given up meanwhile
                forward(request)

            entry.go = go
            request.execute_using_pool = lambda pool, **options: self._execute(entry, request, pool, options)
            with self._lock:
                if entry.has_eta:
                    # It is due: now it gets in line with the others of its key.
                    entry.has_eta, entry.stage = False, "waiting"
                    self._etas -= 1
                    has_turn = self._turns.join(entry)
                else:
                    has_turn = True
                if has_turn:
                    self._places.ask(entry)
            self.resume()
            return None

        return through_lane

    def resume(self) -> bool:
        """Give the pool whatever may run now; whether the event loop must turn before there may be more."""
        # One thread at a time, and not once more from inside: the solo pool runs bodies in here.
        while True:
            with self._lock:
                entry = None
                if not (self._is_letting_go or self._is_closed):
                    entry = self._places.next(self._most(), self._may_go)
                if entry is None:
                    return False
                self._is_letting_go = True
            try:
                assert entry.go is not None
                entry.go()
            finally:
                self._is_letting_go = False
            if entry.ended:
                # The solo pool: the event loop must be able to acknowledge before the next one.
                return True

    def take_back(self, partitions: Collection[int] | None = None) -> list[Entry]:
        """Take what has not started out of this worker's hands, in the order of arrival; of all partitions by default.

        The caller brings it back to its queue.
        """
        with self._lock:
            taken = [
                entry
                for entry in self._entries.values()
                if entry.stage != "running" and (partitions is None or entry.partition in partitions)
            ]
            # All of them first: nobody of them may get a turn by the leaving of another.
            for entry in taken:
                self._remove(entry)
        for entry in taken:
            if entry.delivery.request is not None:
                take_back(entry.delivery.request, entry.delivery.consumer)
            entry.delivery.end("requeued")
        return taken

    def take_all(self) -> list[Entry]:
        """Everything that is not acknowledged, in the order of arrival, when nothing runs any more."""
        with self._lock:
            self._settle()
            left = [*self._ending.values(), *self._entries.values()]
            for entry in tuple(self._entries.values()):
                self._remove(entry)
            self._ending.clear()
        return left

    def take_unanswered(self, seconds: float) -> list[Entry]:
        """What ended longer ago than so many seconds without having been acknowledged or rejected."""
        if not self._ending:
            return []
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
            given = [entry for entry in self._entries.values() if entry.stage == "running"]
            return [entry for entry in given if entry.delivery.pid is None]

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
            return bool(self._count[partition]) or any(entry.partition == partition for entry in self._ending.values())

    def partitions_in_hand(self) -> set[int]:
        """The partitions of all that has not ended."""
        with self._lock:
            return set(self._count)

    @property
    def tags(self) -> set[Any]:
        """The delivery tags of all that is in hand."""
        with self._lock:
            return {*self._entries, *self._ending}

    def held_back(self) -> Counter[int]:
        """Partition -> how many of its messages wait for somebody of their key."""
        with self._lock:
            return self._turns.held_back()

    def occupied(self) -> int:
        """How many messages are with Celery or the pool; those apart that wait for their key or their ETA."""
        with self._lock:
            return len(self._entries) - self._etas - self._turns.held_back().total()

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """The next one of that key has its turn."""
        self._leave(delivery)

    def handed_back(self, delivery: Delivery) -> None:
        """Likewise: another package has taken it, and brings it back as a new message."""
        self._leave(delivery)

    def _is_for_us(self, message: Any) -> bool:
        # Most messages of a worker may be of other queues: no more than this for them.
        where = (message.delivery_info or {}).get("routing_key")
        # Message protocol 1 has neither header.
        return f"{self._partitions.prefix}." in str(where) and "task" in message.headers and "id" in message.headers

    def _arrive(self, delivery: Delivery) -> None:
        delivery.marks.add(IN_LANE)
        number = self._partitions.number(delivery.queue)
        if number is None:
            delivery.hand_over()
            return
        mark = Mark.read(delivery.message.headers)
        # What has no key has no order; what its caller has sent to this very partition has one among itself.
        entry = Entry(delivery, number, None if mark is None else _PINNED if mark.key is None else mark.key)
        delivery.follow(self)
        with self._lock:
            # A strategy may hand on another message in the place of the one that came: from now on it is that one.
            replaced = self._entries.get(entry.tag)
            if replaced is not None:
                self._remove(replaced)
            self._entries[entry.tag] = entry
            self._count[number] += 1
            # An ETA is no place in a line: it gets in line when it is due.
            self._etas += entry.has_eta
            has_turn = entry.has_eta or self._turns.join(entry)
        if has_turn:
            self._pass(entry)

    def _pass(self, entry: Entry) -> None:
        """Let Celery see it, or take it to the pool if Celery has."""
        if entry.go is not None:
            with self._lock:
                self._places.ask(entry)
            self.resume()
            return
        entry.stage = "passed"
        try:
            entry.delivery.hand_over()
        except Exception:
            # Celery's own strategy failed, with the broker's connection mostly: the message stays unanswered.
            entry.delivery.end("requeued")
            raise

    def _may_go(self, entry: Entry) -> bool:
        return self._fence(entry.partition) is not None

    def _execute(self, entry: Entry, request: Any, pool: Any, options: dict[str, Any]) -> Any:
        """The last moment before the pool has it."""
        # Before the fence: a guard that is made after a freeze would be of a newer lease.
        guard = self._guard(entry.partition)
        fence = self._fence(entry.partition)
        if fence is None or is_taken_back(request):
            with self._lock:
                if self._entries.get(entry.tag) is entry:
                    # The lease may have ended: it waits, at the front, until that is known.
                    self._places.leave(entry)
                    self._places.ask(entry, in_front=True)
            forget(request)
            # The one exception that makes Celery's worker give the place in the pool to somebody else.
            raise TaskRevokedError(request.id)
        entry.stage = "running"
        request.request_dict[FENCE] = fence
        # Without late acknowledgement it is acknowledged as it starts: to refuse it then would be to lose it.
        with self._gatehouse.by(guard if request.task.acks_late else None):
            return type(request).execute_using_pool(request, pool, **options)

    def _entry_of(self, delivery: Delivery | None) -> Entry | None:
        if delivery is None:
            return None
        with self._lock:
            entry = self._entries.get(delivery.message.delivery_tag)
        return entry if entry is not None and entry.delivery is delivery else None

    def _leave(self, delivery: Delivery) -> None:
        entry = self._entry_of(delivery)
        if entry is None:
            return
        with self._lock:
            heir = self._remove(entry)
            entry.ended = time.monotonic()
            if not entry.is_cut_off:
                self._ending[entry.tag] = entry
            self._settle()
        if heir is not None and not self._is_closed:
            self._pass(heir)
        self.resume()

    def _remove(self, entry: Entry) -> Entry | None:
        """Take it off every list; who has the turn by that."""
        self._entries.pop(entry.tag, None)
        self._count[entry.partition] -= 1
        if not self._count[entry.partition]:
            del self._count[entry.partition]
        if entry.has_eta:
            self._etas -= 1
        self._places.leave(entry)
        return self._turns.leave(entry)

    def _settle(self) -> None:
        for tag, entry in list(self._ending.items()):
            if entry.delivery.message.acknowledged:
                del self._ending[tag]
