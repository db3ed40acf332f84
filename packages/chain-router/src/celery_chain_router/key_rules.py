"""Key rules: which value of a call decides where it runs."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.canonical import key_bytes
from celery_toolkit_core.log import event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .options import Extractor

logger = logging.getLogger(__name__)

_ABSENT = object()

#: Distinct complaints that are remembered so as not to be repeated; then we are silent.
_MOST_COMPLAINTS = 1000


class KeyRules:
    """The first of these that gives a value other than ``None`` is the key of a call.

    1. The extractor. One that raises, or returns a coroutine, is logged once per task and passed over.
    2. The argument named `routing_key`: given by name, by position, or by its default, as the task would see it. The
       position is known where the task is registered; ``send_task`` by a bare name has only keywords.
    3. The first positional argument.
    4. The task's name.

    A value without a canonical form (an open file, say) is logged once per task and passed over.

    Args:
        routing_key: Name of an argument, or ``None``.
        extractor: Function (task name, args, kwargs) -> key, or ``None``.
    """

    def __init__(self, routing_key: str | None, extractor: Extractor | None) -> None:
        self.routing_key = routing_key
        self.extractor = extractor
        self._places: dict[str, tuple[Any, int | None, Any]] = {}
        self._complaints: set[tuple[str, str]] = set()

    def found(
        self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, task: Any = None
    ) -> tuple[Any, bytes]:
        """The key of a call, and its canonical bytes; never raises.

        Args:
            name: The task's name.
            args: Positional arguments.
            kwargs: Arguments by name.
            task: The task itself where it is known.
        """
        if kwargs and self.routing_key is not None and self.extractor is None:
            # Nearly every call: a fifth of the time of the loop below, which says the same.
            value = kwargs.get(self.routing_key)
            if type(value) is str:
                return value, key_bytes(value)
        for value in self._values(name, args or (), kwargs or {}, task):
            if value is None:
                continue
            try:
                return value, key_bytes(value)
            except Exception as error:  # noqa: BLE001  # a user's object may raise anything while it is encoded
                self._complain(name, "chain_router_key_unusable", error)
        return name, key_bytes(name)

    def _values(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], task: Any) -> Iterator[Any]:
        if self.extractor is not None:
            yield self._extracted(name, args, kwargs)
        if self.routing_key is not None:
            value = kwargs.get(self.routing_key, _ABSENT)
            yield self._from_signature(name, args, task) if value is _ABSENT else value
        if args:
            yield args[0]

    def _extracted(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        assert self.extractor is not None
        try:
            value = self.extractor(name, tuple(args), dict(kwargs))
        except Exception as error:  # noqa: BLE001  # a user's function; routing never raises
            self._complain(name, "chain_router_extractor_failed", error)
            return None
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            self._complain(name, "chain_router_extractor_failed", TypeError("it is a coroutine function"))
            return None
        return value

    def _from_signature(self, name: str, args: Sequence[Any], task: Any) -> Any:
        if task is None:
            return None
        known = self._places.get(name)
        # By identity: in a test suite two applications may have tasks of one name.
        if known is None or known[0] is not task:
            known = self._places[name] = (task, *_place(task, self.routing_key))
        _, position, default = known
        return args[position] if position is not None and position < len(args) else default

    def _complain(self, name: str, what: str, error: Exception) -> None:
        if (name, what) in self._complaints or len(self._complaints) >= _MOST_COMPLAINTS:
            return
        self._complaints.add((name, what))
        # The error's text may quote arguments: its type is enough above DEBUG.
        event(logger, logging.WARNING, what, task=name, error=type(error).__name__, consequence="the next rule decides")
        logger.debug("%s for %s", what, name, exc_info=error)


def _place(task: Any, parameter: str | None) -> tuple[int | None, Any]:
    """(position or None, default or None) of a parameter in the task's signature."""
    try:
        parameters = inspect.signature(getattr(task, "run", task)).parameters
    except (TypeError, ValueError):
        return None, None
    found = parameters.get(parameter or "")
    if found is None or found.kind in (found.VAR_POSITIONAL, found.VAR_KEYWORD):
        return None, None
    default = None if found.default is found.empty else found.default
    if found.kind is found.KEYWORD_ONLY:
        return None, default
    return list(parameters).index(found.name), default
