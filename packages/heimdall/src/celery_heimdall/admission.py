"""How a received task gets its lock and its limits, keeps them while it is in the worker, and gives them back."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from celery.app.task import Context
from celery.exceptions import Ignore, InvalidTaskError

from celery_toolkit_core.celery.deliveries import CONTROL, Follower, Gate
from celery_toolkit_core.errors import RedisError, ToolkitError
from celery_toolkit_core.log import event

from . import telling, waking
from .calls import Call
from .claims import Claim, Refusal
from .errors import LimitExceeded
from .headers import ERROR, FENCE, HOLDER, JOIN, KEY, REFUSED, ROUTE, TOKEN, WAKE
from .signals import lock_lost, task_released
from .unique import conflict_of, mark_as_retry, revoke

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_toolkit_core.celery.deliveries import Delivery
    from celery_toolkit_core.celery.outcomes import Outcome

    from .store import Store

logger = logging.getLogger(__name__)

#: Most tasks renewed in one script; a worker with a large pool must not keep the server from others for long.
RENEWALS = 200

#: Seconds between two questions whether a body may start, while our Redis is away.
ASK_AGAIN = 1.0

#: Ends after which the task comes again, with its id and its place.
_COMES_BACK: tuple[Outcome, ...] = ("retry", "requeued", "unknown")


class NotBegun(Ignore):
    """How a pool's process tells the worker that a body did not begin, and why.

    Args:
        how: ``parked``, ``stale`` or ``dropped``.
        wait: Seconds until the next look at a parked task.
        limit: The limit that a dropped one met.
    """

    def __init__(self, how: str, wait: float = 0.0, limit: str = "") -> None:
        super().__init__(how, wait, limit)


class Visit(Follower):
    """A task in this worker, from its admission to its end; renewed by the keeper meanwhile.

    Args:
        claim: What it wants.
        app: The application.
        begins: Whether the start of the body must be told to the lock.
        holds: Whether it has got what it wants; else only its end is of interest.
    """

    def __init__(self, claim: Claim, app: Any, *, begins: bool = False, holds: bool = False) -> None:
        self.claim = claim
        self.app = app
        self.lost = False
        #: When it was last seen that it holds what it wants, by this process's own clock.
        self.kept = time.monotonic()
        #: The delivery, where the body is to be ended when what it holds is lost.
        self.delivery: Delivery | None = None
        self._begins = begins
        if holds:
            _visits[claim.token] = self

    def accepted(self, delivery: Delivery, pid: int) -> None:
        if self._begins and self.claim.lock is not None:
            self.claim.store.run("begin", [self.claim.lock.key], [self.claim.task_id])

    def lose(self) -> None:
        """Tell that another may run beside this one; once."""
        self.lost = True
        claim, key = self.claim, self.claim.lock.label if self.claim.lock else ""
        event(logger, logging.WARNING, "lock_lost", task=claim.task.name, task_id=claim.task_id, key=key)
        lock_lost.send(sender=claim.task, task_id=claim.task_id, key=key)
        if self.delivery is not None and self.delivery.request is not None:
            consumer = self.delivery.consumer
            # Celery ends tasks from its event loop, and this is the keeper's thread.
            consumer.timer.call_after(0, self.delivery.request.terminate, (consumer.pool,))

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        self._give_back(outcome, comes_back=outcome in _COMES_BACK)
        error = getattr(delivery.error, "exception", None)
        error = getattr(error, "exc", error)  # as prefork wraps it
        if outcome == "ignored" and isinstance(error, NotBegun):
            self._tell(delivery, *error.args)

    def handed_back(self, delivery: Delivery) -> None:
        self._give_back("requeued", comes_back=True)

    def _tell(self, delivery: Delivery, how: str, wait: float, limit: str) -> None:
        task = self.claim.task
        if how == "parked":
            telling.parked(delivery, task, wait, retries=self.claim.retries)
        elif how == "dropped":
            telling.dropped(delivery, task, limit)
        else:
            telling.copy_dropped(delivery, task, how)

    def _give_back(self, outcome: Outcome, *, comes_back: bool) -> None:
        _visits.pop(self.claim.token, None)
        try:
            look = self.claim.finish(outcome, comes_back=comes_back)
        except ToolkitError as error:
            # The leases end by themselves; the next of this key waits that long.
            event(logger, logging.WARNING, "release_failed", task_id=self.claim.task_id, error=str(error))
            return
        if look:
            waking.waker(self.app).notice(0.0)
        task_released.send(sender=self.claim.task, task_id=self.claim.task_id, outcome=outcome)


#: What this worker has in hand, by token.
_visits: dict[str, Visit] = {}


def renew(store: Store) -> None:
    """Renew everything of one store that this worker has in hand: one round trip for each `RENEWALS` of them."""
    visits = [visit for visit in list(_visits.values()) if visit.claim.store is store]
    try:
        for start in range(0, len(visits), RENEWALS):
            _renew_some(store, visits[start : start + RENEWALS])
    finally:
        # Also when the server is away: by now the leases have ended there.
        now = time.monotonic()
        for visit in visits:
            if now - visit.kept > store.settings.lease and not visit.lost and visit.claim.token in _visits:
                visit.lose()


def _renew_some(store: Store, visits: list[Visit]) -> None:
    keys, args = [store.parking[3]], []
    for visit in visits:
        more_keys, more_args = visit.claim.renewal()
        keys += more_keys
        args += more_args
    asked = time.monotonic()
    for visit, kept in zip(visits, store.run("renew", keys, args), strict=True):
        if kept:
            visit.kept = asked
        elif not visit.lost and visit.claim.token in _visits:
            visit.lose()


def start(task: Any, request: Any, token: str, call: Call) -> Claim:
    """The strict decision about a limited task, in the process and at the moment in which its body starts.

    Raises:
        NotBegun: The body may not start: the task is parked again, is dropped, or goes on under another token.
        LimitExceeded: Nor may it start, and the limit asks for an error then.
        RedisUnavailable: Our Redis did not answer for as long as a lease.
    """
    claim = Claim(task, call, request.get(KEY), request.id, request.retries or 0, token)
    settings = claim.store.settings
    give_up = time.monotonic() + settings.lease
    while True:
        try:
            verdict = claim.start()
            break
        except RedisError as error:
            if settings.on_redis_error == "run":
                return claim
            # To fail would be the end of a task that was accepted; the same question gets the same answer.
            if time.monotonic() > give_up:
                raise
            event(logger, logging.WARNING, "start_waits_for_redis", task_id=claim.task_id, error=str(error))
            time.sleep(ASK_AGAIN)
    if claim.refusal is not None:
        refuse(task, request, claim.refusal)
    if verdict == "parked" and claim.retries:
        mark_as_retry(task, request, claim.wait)
    if verdict != "go":
        raise NotBegun(verdict, claim.wait)
    return claim


def refuse(task: Any, request: Any, refusal: Refusal) -> NoReturn:
    """End a task that met a full limit, in the pool's process: by its strategy, so that links and chords hear of it.

    Raises:
        NotBegun: It is dropped.
        LimitExceeded: It fails.
    """
    if refusal.strategy == "raise":
        raise LimitExceeded((refusal.limit,), refusal.retry_after)
    task.backend.mark_as_revoked(
        request.id, f"the limit {refusal.limit} is full", request, store_result=not task.ignore_result
    )
    raise NotBegun("dropped", limit=refusal.limit)


class HeimdallGate(Gate):
    """Lets a received task proceed, parks it, or ends it as a duplicate.

    Args:
        task: The task.
        consumer: The worker's consumer.
    """

    rank = CONTROL

    def __init__(self, task: Any, consumer: Any) -> None:
        self.task = task
        self.app = consumer.app
        self._revoked = consumer.controller.state.revoked

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        message = delivery.message
        headers = message.headers
        woken = headers.get(WAKE)
        token = woken or _new_token(delivery)
        claim = self._claim(delivery, token)
        if claim is None:
            proceed()
            return
        if not woken and delivery.task_id in self._revoked:
            delivery.follow(Visit(claim, self.app))
            proceed()
            return
        try:
            verdict, *rest = self._enter(claim, delivery, woken=bool(woken))
        except RedisError:
            if claim.store.settings.on_redis_error == "raise":
                raise  # The delivery goes back to the broker and comes again in a moment.
            proceed()
            return
        getattr(self, f"_{verdict}")(claim, delivery, proceed, *rest)

    def _claim(self, delivery: Delivery, token: str) -> Claim | None:
        headers: dict[str, Any] = delivery.message.headers
        attempt = headers.get("retries") or 0
        call = Call(self.task, load=lambda: delivery.message.payload[:2])
        try:
            return Claim(self.task, call, headers.get(KEY), delivery.task_id, attempt, token)
        except Exception as error:  # noqa: BLE001  # functions of the user raise anything
            headers[ERROR] = f"{self.task.name} did not run: {type(error).__name__}: {error}"
            if self.task.heimdall_config.unique and headers.get(KEY):
                claim = Claim(self.task, call, headers[KEY], delivery.task_id, attempt, token, bare=True)
                delivery.follow(Visit(claim, self.app))
            return None

    def _enter(self, claim: Claim, delivery: Delivery, *, woken: bool) -> list[Any]:
        headers = delivery.message.headers
        queue = _queue_of(delivery)
        if not delivery.consumer.task_consumer.consuming_from(f"{queue}{waking.SUFFIX}"):
            delivery.consumer.add_task_queue(f"{queue}{waking.SUFFIX}")
        join = bool(headers.get("group")) or (claim.unique is not None and conflict_of(self.task) == "join")
        asked: dict[str, Any] = {
            "woken": woken,
            "queue": queue,
            "message": delivery.stored.to_bytes() if claim.limits_lane and not woken else b"",
            "later": bool(headers.get("eta")) and not woken,
            "join": join,
            "holder": headers.get(HOLDER) or "",
        }
        while True:
            answer = claim.enter(**asked)
            if answer[0] == "message":
                if asked["woken"]:
                    # Delivered again after it had begun: an ordinary copy, which must not pass for the first one.
                    claim.token = _new_token(delivery)
                asked.update(woken=False, message=_plain(delivery).to_bytes())
            elif answer[0] == "duplicate" and not asked["join"] and _is_composed(delivery):
                asked.update(join=True)
            else:
                return answer

    def _run(self, claim: Claim, delivery: Delivery, proceed: Callable[[], None], fence: int, holder: str) -> None:
        headers: dict[str, Any] = delivery.message.headers
        headers[TOKEN] = claim.token
        if fence:
            headers[FENCE] = fence
        if holder:
            headers[HOLDER] = holder
        begins = claim.until == "start" and not claim.limits_lane
        visit = Visit(claim, self.app, begins=begins, holds=True)
        if claim.store.settings.on_lock_lost == "abort":
            visit.delivery = delivery
        delivery.follow(visit)
        self._proceed(delivery, proceed)

    def _refused(self, claim: Claim, delivery: Delivery, proceed: Callable[[], None], place: int, wait_ms: int) -> None:
        headers: dict[str, Any] = delivery.message.headers
        headers[REFUSED] = claim.refusal_of(place, wait_ms)
        delivery.follow(Visit(claim, self.app))
        self._proceed(delivery, proceed)

    def _join(self, _: Claim, delivery: Delivery, proceed: Callable[[], None], holder: str, state: str) -> None:
        headers: dict[str, Any] = delivery.message.headers
        headers[JOIN] = [holder, state]
        self._proceed(delivery, proceed)

    def _parked(self, claim: Claim, delivery: Delivery, _: Callable[[], None], wait_ms: int, why: str) -> None:
        delivery.hand_back(why)
        wait = wait_ms / 1000
        retries = claim.retries and why == "limited"
        if retries:
            mark_as_retry(self.task, Context(delivery.message.headers), wait)
        telling.parked(delivery, self.task, wait, retries=retries)
        waking.waker(self.app).notice(wait)

    def _duplicate(self, claim: Claim, delivery: Delivery, _: Callable[[], None], holder: str) -> None:
        revoke(self.task, claim.task_id, holder, reply_to=delivery.message.properties.get("reply_to"))
        telling.deduplicated(delivery, self.task, holder)
        delivery.hand_back("ended")

    def _drop(self, _: Claim, delivery: Delivery, __: Callable[[], None], why: str) -> None:
        telling.copy_dropped(delivery, self.task, why)
        delivery.hand_back("ended")

    def _proceed(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        headers: dict[str, Any] = delivery.message.headers
        if WAKE in headers:
            telling.woken(delivery, self.task)
        # A woken message counts as received from where it was sent to: a retry goes back there.
        route = headers.pop(ROUTE, None)
        if route is not None:
            exchange, routing_key = route
            delivery.message.delivery_info.update(exchange=exchange, routing_key=routing_key)
        proceed()


def _new_token(delivery: Delivery) -> str:
    return f"{delivery.task_id}/{uuid4().hex[:16]}"


def _plain(delivery: Delivery) -> Any:
    stored = delivery.stored
    if WAKE in stored.headers:
        stored = stored.with_headers(**{WAKE: None})
    return stored


def _queue_of(delivery: Delivery) -> str:
    return delivery.queue.removesuffix(waking.SUFFIX)


def _is_composed(delivery: Delivery) -> bool:
    """Whether somebody's chain, chord or link waits for this very message's task."""
    try:
        embedded = delivery.message.payload[2]
    except (LookupError, TypeError):
        raise InvalidTaskError("the message's body is not of Celery's protocol 2") from None
    return any(embedded.get(name) for name in ("callbacks", "errbacks", "chain", "chord"))
