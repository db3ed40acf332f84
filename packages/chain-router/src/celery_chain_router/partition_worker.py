"""What runs in a worker in partition mode: it takes its share of the partitions, and hands them on."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from celery.platforms import EX_FAILURE
from celery.signals import worker_shutting_down
from celery.worker import state
from redis.exceptions import RedisError

from celery_toolkit_core.celery.deliveries import forget_dropped
from celery_toolkit_core.celery.worker import WorkerStep, install
from celery_toolkit_core.errors import ToolkitError
from celery_toolkit_core.keeper import Keeper
from celery_toolkit_core.log import event

from .discovery import find_router, settings_of
from .errors import WorkerNameTaken
from .guard import Gatehouse
from .handoff import HandOff
from .lane import Lane
from .ownership import Ownership
from .queues import queues_of
from .settings import PREFIX, ChainRouterSettings
from .tenure import Tenure
from .transit import flush

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .guard import Guard
    from .membership import Membership
    from .presence import Presence
    from .router import ChainRouter

logger = logging.getLogger(__name__)

#: Seconds between two looks at the epoch, at most; a third of the lease where that is shorter.
LOOK = 0.5

#: Seconds between two looks while a partition is on its way to us or away from us.
BUSY_LOOK = 0.1

#: Seconds between two ticks of the consumer's thread while messages come; see the setting `poll` for the longest.
TICK = 0.005


def enter(worker: Any, router: ChainRouter, presence: Presence, membership: Membership) -> None:
    """Let a worker, which has its name, take part in sharing out the partitions.

    Args:
        worker: Celery's ``WorkController``.
        router: The router of its application.
        presence: Its place among the workers.
        membership: The workers.

    Raises:
        ToolkitError: The broker will not do, or the others have another number of partitions.
    """
    assert router.partitions is not None
    tenure = Tenure(Ownership(membership, router.partitions.count), presence)
    queues = queues_of(worker.app, router.partitions, tenure)
    try:
        tenure.beat()
    except ToolkitError:
        presence.leave()
        raise
    worker.chain_router_tenure, worker.chain_router_queues = tenure, queues
    install(worker.app, PartitionStep)


class _Strategies(dict[str, Any]):
    """The strategies of a consumer; each stands behind the lane from the moment it is set."""

    def __init__(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        super().__init__()
        self._wrap = wrap

    def __setitem__(self, name: str, strategy: Callable[..., Any]) -> None:
        super().__setitem__(name, self._wrap(strategy))


class PartitionStep(WorkerStep):
    """Signs of life in one thread, taking over and giving up in another, and the lane in the consumer's own."""

    prefix = PREFIX
    settings = ChainRouterSettings

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        router = find_router(consumer.app)
        assert router is not None
        assert router.partitions is not None
        controller = consumer.controller
        self.partitions = router.partitions
        self.on_assign, self.on_revoke = router.partition_hooks
        self.tenure: Tenure = controller.chain_router_tenure
        self.queues = controller.chain_router_queues
        self.lane = Lane(
            self.partitions,
            self.tenure.fence,
            self._guard,
            Gatehouse(consumer.pool),
            lambda: controller.max_concurrency or consumer.pool.num_processes or 1,
        )
        self.hand_off = HandOff(self.partitions, self.lane, self.queues)
        self.mover = Keeper("chain-router-mover")
        self.ticker = Keeper("chain-router-ticker")
        self._longest_tick = settings_of(consumer.app).poll
        self._next_tick = TICK
        self._consumer = consumer
        self._move_job: Any = None
        self._tick_timer: Any = None
        self._is_closing = False
        self._flush: Any = None
        self._celerys_flush: Any = None
        # Lost, and not seen to yet.
        self._lost: deque[dict[int, int]] = deque()
        # Given up, by wish or by loss, but still in hand.
        self._going: dict[int, int] = {}
        # Here, because the strategies are made, with what gives requests to the pool, before any step has started.
        consumer.strategies = _Strategies(self.lane.wrap_strategy)
        consumer.on_task_request = self.lane.wrap_task_request(consumer.on_task_request)
        self._celerys_disconnect = consumer.on_connection_error_after_connected
        consumer.on_connection_error_after_connected = self._disconnect
        self._celerys_add_queue = consumer.add_task_queue
        consumer.add_task_queue = self._add_queue

    def prepare(self, consumer: Any) -> None:
        """Begin to give signs of life, and to look at what this worker is to have."""
        event(logger, logging.INFO, "chain_router_joined", name=self.tenure.presence.name)
        lease = self.tenure.ownership.membership.lease
        self.keeper.every(lease / 3, self._beat, at_once=True)
        self._move_job = self.mover.every(min(LOOK, lease / 3), self._move, at_once=True)
        if consumer.hub is None:
            tick = self._tick
            if self.queues.is_bound_to_consumer:

                def tick() -> None:
                    # The consumer looks between two messages, and every two seconds.
                    consumer.call_soon(self._tick)

            self.ticker.every(self._longest_tick, tick)
        worker_shutting_down.connect(self._announce_end, weak=False)

    def start(self, consumer: Any) -> None:
        """At the start and after each reconnect: what was not running goes back to its queue first of all."""
        celerys_flush = getattr(consumer.pool, "flush", None)
        if celerys_flush is not None and self._flush is not celerys_flush:
            self._celerys_flush = celerys_flush
            consumer.pool.flush = self._flush = partial(self._flush_pool, consumer.pool)
        self.hand_off.attach(consumer)
        forget_dropped(consumer)
        super().start(consumer)
        self.mover.start()
        if consumer.hub is not None:
            # The loop has no other way to hear of other threads. Celery ends the timer with the connection.
            self._tick_in_loop()
        else:
            self.ticker.start()

    def stop(self, consumer: Any) -> None:
        """At a shutdown: give back what has not started. A reconnect has no connection to do so."""
        self.ticker.stop()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        if consumer.connection is not None and not self._is_closing:
            self._is_closing = True
            self.hand_off.close()

    def finish(self, consumer: Any) -> None:
        """Nothing runs any more: give back, give up, leave."""
        worker_shutting_down.disconnect(self._announce_end)
        self.mover.stop()
        # Before leaving: a sign of life after it would be a new joining.
        self.keeper.stop()
        try:
            self.hand_off.finish()
            self._give_up(self.tenure.held)
        finally:
            self.tenure.presence.leave()

    def _beat(self) -> None:
        try:
            lost = self.tenure.beat()
        except WorkerNameTaken as error:
            event(logger, logging.CRITICAL, "chain_router_name_lost", name=error.name, holder=error.holder)
            # Its partitions are another's: this one finishes what it has and ends.
            lost = self.tenure.lose()
            state.should_stop = EX_FAILURE  # type: ignore[assignment]  # the stubs know only its first value
        if lost:
            event(logger, logging.WARNING, "chain_router_lost", partitions=sorted(lost))
            self._lost.append(lost)
            self._move_job.soon()

    def _move(self) -> None:
        if self.tenure.ownership.look() != self.tenure.epoch:
            self._beat()
        while self._lost:
            lost = self._lost.popleft()
            self._going.update(lost)
            self.hand_off.leave(lost)
            self._call_hook(self.on_revoke, lost)
        held, targets = self.tenure.held, self.tenure.targets
        unwanted = {number: fence for number, fence in held.items() if number not in targets or self._is_closing}
        news = unwanted.keys() - self._going.keys()
        if news:
            self._going.update({number: unwanted[number] for number in news})
            self.hand_off.leave(news)
        emptied = self._going.keys() & self.hand_off.emptied
        self._give_up({number: held[number] for number in emptied & held.keys()})
        for number in emptied:
            self.hand_off.forget(number)
            del self._going[number]
        if targets - held.keys() and not self._is_closing:
            self._take_over()
        is_busy = self._going or targets - self.tenure.held.keys() or self.hand_off.is_busy
        if is_busy and not self._is_closing:
            self._move_job.soon(BUSY_LOOK)

    def _take_over(self) -> None:
        fences = self.tenure.acquire()
        if not fences:
            return
        adopted = self.queues.adopt(fences, self.lane)
        event(logger, logging.INFO, "chain_router_took_over", partitions=sorted(fences), adopted=adopted)
        self._call_hook(self.on_assign, fences)
        if self.tenure.hold(fences):
            self.hand_off.enter(fences)
        # else a freeze was in between; the next look takes what is still to be had.

    def _give_up(self, fences: dict[int, int]) -> None:
        if fences:
            self._call_hook(self.on_revoke, fences)
            self.tenure.release(fences)
            event(logger, logging.INFO, "chain_router_gave_up", partitions=sorted(fences))

    def _call_hook(self, hook: Callable[[int], object] | None, numbers: Iterable[int]) -> None:
        if hook is None:
            return
        for number in sorted(numbers):
            try:
                hook(number)
            except Exception:  # a user's function: the partition moves all the same
                logger.exception("chain_router_hook_failed partition=%s", number)

    def _tick_in_loop(self) -> None:
        self._tick()
        # At once while there is work, then more and more seldom.
        self._next_tick = TICK if self.hand_off.is_in_flow else min(self._longest_tick, self._next_tick * 1.5)
        if not self._is_closing:
            self._tick_timer = self._consumer.timer.call_after(self._next_tick, self._tick_in_loop)

    def _tick(self) -> None:
        try:
            self.hand_off.tick()
        except (ToolkitError, RedisError, *self._consumer.connection_errors) as error:
            self.hand_off.is_in_flow = False
            event(logger, logging.WARNING, "chain_router_look_failed", error=repr(error))

    def _guard(self, partition: int) -> Guard:
        if self._consumer.pool.uses_semaphore:  # processes
            return self.tenure.until()
        return lambda: self.tenure.fence(partition) is not None

    def _flush_pool(self, pool: Any) -> None:
        self.lane.unsent(flush(pool, self._celerys_flush, self.lane.sent()))

    def _add_queue(self, queue: str, *args: Any, **options: Any) -> Any:
        if self.partitions.number(queue) is None:
            return self._celerys_add_queue(queue, *args, **options)
        self.hand_off.add_companion(queue)
        return None

    def _disconnect(self, error: BaseException) -> None:
        self.hand_off.disconnect()
        self._celerys_disconnect(error)

    def _announce_end(self, **_: Any) -> None:
        # Comes inside a signal handler, where a lock of the interrupted code may be held: not in this thread.
        Thread(target=self._stand_down, name="chain-router-stand-down", daemon=True).start()

    def _stand_down(self) -> None:
        presence = self.tenure.presence
        grace = settings_of(self._consumer.app).grace
        try:
            self.tenure.ownership.stand_down(presence.name, presence.token, grace)
        except ToolkitError as error:  # the lease ends all the same
            event(logger, logging.WARNING, "chain_router_drain_failed", error=str(error))
