"""How the worker's main process meets the end of a preset task: letters before acknowledgements, killed processes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import Retry
from celery.utils.time import get_exponential_backoff_interval
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import task_ready
from kombu.utils.encoding import safe_repr, safe_str

from celery_toolkit_core.celery.deliveries import Delivery
from celery_toolkit_core.celery.outcomes import outcome_of
from celery_toolkit_core.log import event

from .undertaker import KILLS, undertaker_of

if TYPE_CHECKING:
    from celery_toolkit_core.celery.outcomes import Outcome

logger = logging.getLogger(__name__)

_Request: Any = Request


class PresetRequest(_Request):  # type: ignore[misc]  # the stubs lack half of what Celery's has
    """Celery's request, with two differences.

    A task that fails for good has its dead letter before its message is acknowledged.

    A task whose process died is sent again as a retry, and the message says how often that has happened: after
    `PresetTask.max_kills` it has failed. Celery's own ``reject_on_worker_lost`` gives the message back to the broker,
    which counts nothing: a task that needs more memory than there is would kill one process after the other for ever.
    """

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The body raised, or its process is gone."""
        outcome, error = outcome_of(exc_info.exception), _bare(exc_info)
        if outcome == "lost" and not self._is_meant():
            if self._retry_killed(exc_info):
                return None
            self._bury(outcome, exc_info)
        elif outcome == "failure" or (outcome == "rejected" and not error.requeue):
            self._bury(outcome, exc_info)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """The body has used up its soft or its hard time limit."""
        if not soft and state.should_terminate in (None, False):
            self._bury("timeout", None)
        return super().on_timeout(soft, timeout)

    def _is_meant(self) -> bool:
        # Ended by a revoke, by the loss of the connection or by a cold shutdown, or after the result was stored
        # (Celery 5.7): Celery knows what to do.
        if self._already_cancelled or self._already_revoked or state.should_terminate not in (None, False):
            return True
        return bool(hasattr(Request, "_success_was_stored") and self._success_was_stored())

    def _bury(self, outcome: Outcome, error: Any) -> None:
        delivery, undertaker = Delivery.of_request(self), undertaker_of(self.task.app)
        if delivery is not None and undertaker is not None:
            undertaker.bury(delivery, outcome, error)

    def _retry_killed(self, exc_info: Any) -> bool:
        """Send the task again; False when it may not be tried any more, or was acknowledged before it began."""
        task, context = self.task, self._context
        retries = context.retries or 0
        kills = int((context.headers or {}).get(KILLS, 0)) + 1
        if not task.acks_late or kills >= task.max_kills:
            return False
        if task.max_retries is not None and retries >= task.max_retries:
            return False
        pause = get_exponential_backoff_interval(
            factor=int(max(1.0, task.retry_backoff)), retries=retries, maximum=task.retry_backoff_max, full_jitter=True
        )
        headers = {**(context.headers or {}), KILLS: kills}
        signature = task.signature_from_request(
            context, self.args, self.kwargs, countdown=pause, retries=retries + 1, headers=headers
        )
        task_ready(self)
        try:
            signature.apply_async()
        except Exception:
            logger.exception("Task %s[%s] lost its process and could not be sent again", self.name, self.id)
            # Without a broker nothing is acknowledged either: it comes again by itself.
            self.reject(requeue=True)
            return True
        event(logger, logging.WARNING, "task_killed", task=self.name, task_id=self.id, kills=kills, pause=pause)
        self._tell_retry(exc_info, _bare(exc_info))
        return True

    def _tell_retry(self, exc_info: Any, error: Any) -> None:
        # As Celery does for the retry of a body, where the child does most of it.
        task, context = self.task, self._context
        if self.store_errors:
            task.backend.mark_as_retry(self.id, error, exc_info.traceback, request=context)
        self.acknowledge()
        self.send_event("task-retried", exception=safe_repr(error), traceback=safe_str(exc_info.traceback))
        task.request_stack.push(context)
        try:
            task.on_retry(error, self.id, self.args, self.kwargs, exc_info)
            signals.task_retry.send(sender=task, request=context, reason=Retry(exc=error), einfo=exc_info)
        finally:
            task.request_stack.pop()
        delivery = Delivery.of_request(self)
        if delivery is not None:
            delivery.end("retry")


def _bare(exc_info: Any) -> Any:
    return getattr(exc_info.exception, "exc", exc_info.exception)
