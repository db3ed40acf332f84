"""How a received task gets its lock and its limits, or waits for them."""

from __future__ import annotations

from os import urandom
from typing import TYPE_CHECKING, Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError

from celery_toolkit_core.celery.deliveries import CONTROL, Gate
from celery_toolkit_core.errors import RedisError

from . import telling, waking
from .calls import Call
from .claims import Claim
from .headers import ENTERED, ERROR, FENCE, HOLDER, JOIN, KEY, REFUSED, ROUTE, TOKEN, WAKE
from .unique import conflict_of, mark_as_retry, revoke
from .visits import Visit

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_toolkit_core.celery.deliveries import Delivery


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
        headers[ENTERED] = claim.asked
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
    return f"{delivery.task_id}/{urandom(8).hex()}"


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
