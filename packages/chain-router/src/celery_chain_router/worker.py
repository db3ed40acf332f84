"""What runs in a worker: it joins the ring at its start, consumes its own queue, and leaves at its end."""

from __future__ import annotations

import logging
import os
import sys
from threading import Thread
from typing import TYPE_CHECKING, Any

from celery.platforms import EX_FAILURE
from celery.signals import task_received, worker_shutting_down
from celery.utils.nodenames import worker_direct
from celery.worker import state

from celery_toolkit_core.celery.worker import WorkerStep, install, refuse_both
from celery_toolkit_core.errors import InvalidParameter, RedisUnavailable, ToolkitError
from celery_toolkit_core.keeper import Elected, Keeper
from celery_toolkit_core.leases import Leases
from celery_toolkit_core.log import event

from .discovery import find_router, membership_of, settings_of
from .errors import PartitionsNeedRedis, WorkerNameTaken
from .membership import Member
from .names import weight, worker_name
from .orphans import Orphans
from .presence import Presence
from .settings import PREFIX, ChainRouterSettings
from .traffic import TrafficCounter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .partitions import Partitions
    from .router import ChainRouter

logger = logging.getLogger(__name__)

#: Seconds between two looks for dead workers and their messages.
SWEEP = 1.0


def enter(worker: Any, router: ChainRouter) -> None:
    """Join the ring before the worker consumes, if it is meant to be on it.

    Args:
        worker: Celery's ``WorkController``, its queues selected.
        router: The router of its application.

    Raises:
        ToolkitError: The name is taken, a setting cannot be meant, or the older distribution is installed as well.
    """
    refuse_both("celery-toolkit-chain-router", "celery-chain-router")
    if router.partitions is not None:
        _enter_partitions(worker, router, router.partitions)
        return
    sharing = router.attach(worker.app)
    wanted = _wanted_names(worker, router)
    if wanted is None:
        return
    names, slots = wanted
    if sharing is None:
        # Nothing to join: a worker that was registered by hand still finds its queue without -Q.
        if not slots and names[0] in router.ring:
            _consume(worker, names[0])
        else:
            _keep_to_usual_queues(worker)
        return
    presence = Presence(
        sharing.membership,
        worker.hostname,
        _weight(worker.app),
        lambda name: _companions(worker.app, name),
    )
    try:
        presence.join(names, slots=slots, waiting=_say_waiting)
    except RedisUnavailable:
        if slots:
            raise
        presence.claim(names[0])
    sharing.refresh()
    _consume(worker, presence.name)
    worker.chain_router_presence = presence
    install(worker.app, RingStep)


def _enter_partitions(worker: Any, router: ChainRouter, partitions: Partitions) -> None:
    from . import partition_worker

    wanted = _wanted_names(worker, router)
    if wanted is None:
        return
    connect = membership_of(worker.app, partitions)
    if connect is None:
        raise PartitionsNeedRedis
    membership = connect()
    names, slots = wanted
    presence = Presence(membership, worker.hostname, _weight(worker.app), lambda _: ())
    presence.join(names, slots=slots, waiting=_say_waiting)
    _keep_to_usual_queues(worker)
    worker.app.amqp.queues.deselect(partitions.prefix)
    partition_worker.enter(worker, router, presence, membership)


def _wanted_names(worker: Any, router: ChainRouter) -> tuple[Sequence[str], bool] | None:
    """(names in order of preference, whether a free slot will do); ``None`` when this worker stays off the ring.

    With ``-Q`` the operator has said what the worker is for: it joins only if its own queue is among that.
    """
    slot = os.environ.get("CHAIN_ROUTER_SLOT")
    if slot:
        return [worker_name(slot)], False
    selected = worker.app.amqp.queues._consume_from
    node = worker.hostname.partition("@")[0]
    if router.partitions is not None and selected is not None:
        # There the prefix stands for whatever partitions it gets.
        if router.partitions.prefix not in selected:
            return None
        selected = None
    if node != "celery":
        return ([worker_name(node)], False) if selected is None or node in selected else None
    return (router.registered, True) if selected is None else None


def _weight(app: Any) -> float:
    given = os.environ.get("CHAIN_ROUTER_WEIGHT")
    if not given:
        return settings_of(app).weight
    try:
        return weight(float(given))
    except ValueError as error:
        raise InvalidParameter("CHAIN_ROUTER_WEIGHT", given, "give a number above 0, up to 100") from error


def _consume(worker: Any, name: str) -> None:
    """Let the worker consume the queue of its name beside what it consumes anyhow."""
    queues = worker.app.amqp.queues
    own = queues[name] if name in queues or queues.create_missing else queues.new_missing(name)
    _keep_to_usual_queues(worker)
    queues.select_add(own)


def _keep_to_usual_queues(worker: Any) -> None:
    """Make the selection of queues explicit where there is no ``-Q``.

    Celery 5.5 consumes after a reconnect every queue it has heard of, and by routing it hears of the other workers'.
    """
    app = worker.app
    queues = app.amqp.queues
    if queues._consume_from is None:
        usual = {queue if isinstance(queue, str) else queue.name for queue in app.conf.task_queues or ()}
        usual = usual or {app.conf.task_default_queue}
        if app.conf.worker_direct:
            usual.add(worker_direct(worker.hostname).name)
        queues.select([queue for queue in queues.consume_from if queue in usual])


def _companions(app: Any, name: str) -> list[str]:
    return sorted(queue.removeprefix(name) for queue in app.amqp.queues.consume_from if queue.startswith(f"{name}."))


def _say_waiting(error: WorkerNameTaken) -> None:
    # Celery has not set up its logging yet.
    sys.stderr.write(
        f"chain-router: waiting up to {error.remaining:.0f} s for the name {error.name!r}: {error.holder} has it "
        "and may be dead\n"
    )


class RingStep(WorkerStep):
    """Signs of life, and the search for dead workers; each in a thread of its own, as the broker may be slow."""

    prefix = PREFIX
    settings = ChainRouterSettings

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        router = find_router(consumer.app)
        assert router is not None
        assert router.sharing is not None
        self.router = router
        self.sharing = router.sharing
        self.presence: Presence = consumer.controller.chain_router_presence
        # Every worker of an application has the same queues beside its own: so we know those of one that died too early
        # to tell.
        self.orphans = Orphans(
            consumer.app, router.hash_function, lambda: _companions(consumer.app, self.presence.name)
        )
        self.sweeper = Keeper("chain-router-sweeper")
        self.traffic = TrafficCounter(router, settings_of(consumer.app).top_keys)
        self.presence.traffic = self.traffic.report

    def prepare(self, consumer: Any) -> None:
        """Begin to give signs of life, and to look for dead workers when elected."""
        event(logger, logging.INFO, "chain_router_joined", name=self.presence.name)
        self._restore_of_predecessor()
        membership = self.sharing.membership
        self.keeper.every(membership.lease / 3, self._beat, at_once=True)
        interval = min(SWEEP, membership.lease / 3)
        office = Elected(Leases(membership.client, membership.key_space, ttl=interval), "sweep")
        self.sweeper.every(interval, self._sweep, elected=office, at_once=True)
        self.sweeper.start()
        task_received.connect(self.traffic.count, weak=False)
        worker_shutting_down.connect(self._announce_end, weak=False)

    def finish(self, consumer: Any) -> None:
        """Leave: the keys go to the others at once."""
        task_received.disconnect(self.traffic.count)
        worker_shutting_down.disconnect(self._announce_end)
        self.sweeper.stop()
        # Before leaving: a sign of life after it would be a new joining.
        self.keeper.stop()
        self.orphans.close()
        self.presence.leave()

    def _restore_of_predecessor(self) -> None:
        """Let wait again what a dead worker of our name had in hand; we have taken nothing ourselves yet."""
        name = self.presence.name
        try:
            self.orphans.restore(Member(name, "gone"), self.router.ring)
        except Exception:  # then the broker gives it back after its visibility timeout
            logger.exception("chain_router_restore_failed name=%s", name)

    def _beat(self) -> None:
        try:
            self.presence.beat()
        except WorkerNameTaken as error:
            event(logger, logging.CRITICAL, "chain_router_name_lost", name=error.name, holder=error.holder)
            # Two workers on one queue would part its keys: this one finishes what it has and ends.
            state.should_stop = EX_FAILURE  # type: ignore[assignment]  # the stubs know only its first value
            return
        self.sharing.refresh()
        mismatches, self.traffic.mismatches = self.traffic.mismatches, 0
        if mismatches:
            event(logger, logging.INFO, "chain_router_split_view", messages=mismatches, ring=self.router.fingerprint)

    def _sweep(self) -> None:
        # The script that gives a sign of life also takes the dead off the ring.
        self._beat()
        self.orphans.adopt(self.sharing.view.in_state("gone"), self.router.ring)

    def _announce_end(self, **_: Any) -> None:
        # Comes inside a signal handler, where a lock of the interrupted code may be held: not in this thread.
        Thread(target=self._drain, name="chain-router-drain", daemon=True).start()

    def _drain(self) -> None:
        try:
            self.presence.drain()
        except ToolkitError as error:  # the lease ends all the same
            event(logger, logging.WARNING, "chain_router_drain_failed", error=str(error))
