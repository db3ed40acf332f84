"""Clients: what an operator may tell them, and what is known of them."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery_toolkit_core import parameters

from .application import issue_quietly, ranch_of
from .backlog import client_of
from .entries import tickets_of
from .options import check_key, check_weight
from .profiles import Profiles, read_profile
from .results import tell_revoked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

    from celery import Celery

#: Tasks that one run of a script throws away, and clients that one looks at.
_BATCH = 500
#: Seconds between two looks of `Clients.drain`.
_LOOK = 0.2


class Clients:
    """The clients of one application.

    Args:
        app: The Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._ranch = ranch_of(app)
        self._backlog = self._ranch.backlog
        self._profiles = Profiles(self._backlog)

    def set_weight(self, key: str | int, weight: float) -> bool:
        """Set a client's weight: 0.5 is served twice as often as 1.0. Its place in the line does not change."""
        self._set(key, w=repr(check_weight("weight", weight)))
        return True

    def set_share(self, key: str | int, share: float) -> bool:
        """Set a client's weight the other way round: a share of 2 is served twice as often as one of 1."""
        return self.set_weight(key, 1.0 / check_weight("share", share))

    def set_max_in_flight(self, key: str | int, most: int | None) -> None:
        """Let at most `most` tasks of a client be in flight at a time; None takes the cap away."""
        self._set(key, x="" if most is None else parameters.count("max_in_flight", most))

    def set_max_backlog(self, key: str | int, most: int | None) -> None:
        """Let at most `most` tasks of a client wait; None takes the limit away.

        What happens to one more says the task's option `on_full`.
        """
        self._set(key, y="" if most is None else parameters.count("max_backlog", most))

    def pause(self, key: str | int) -> None:
        """Let nothing of this client begin until `resume`; what runs goes on, what is sent waits."""
        self._set(key, h="1")

    def drain(self, key: str | int, *, wait: float | timedelta | None = None) -> int:
        """Take no new tasks of a client until `resume`: they are refused with `ClientDraining`.

        What waits, runs or is scheduled goes on, with its retries and whatever its bodies send for the same client.

        Args:
            key: The client.
            wait: Seconds to wait until nothing of it is left; without, do not wait.

        Returns:
            How many of its tasks are left, waiting, scheduled or in flight.
        """
        self._set(key, d="1")
        end = time.monotonic() + (0 if wait is None else parameters.seconds("wait", wait))
        while True:
            seen = self.show(key) or {"waiting": 0, "in_flight": 0}
            left = int(seen["waiting"] + seen["in_flight"])
            if not left or time.monotonic() >= end:
                return left
            time.sleep(_LOOK)

    def resume(self, key: str | int) -> None:
        """End a pause, or a drain."""
        self._set(key, h="", d="")

    def purge(self, key: str | int) -> int:
        """Throw away what a client has waiting, in all queues; what is in flight or scheduled stays.

        The result backend is told that they are revoked, so that nobody waits for them in vain.

        Returns:
            The number of tasks thrown away.
        """
        purged = 0
        queues = list(self._backlog.queues())
        while messages := self._backlog.run("purge", [client_of(check_key(key)), _BATCH, *queues]):
            purged += len(messages)
            for message in messages:
                tell_revoked(self._ranch.app, message, "purged")
        return purged

    def tag(self, key: str | int, tags: Mapping[str, Any]) -> bool:
        """Put tags on a client; a tag of the same name is replaced."""
        return self._profiles.tag(check_key(key), tags)

    def tagged(self, name: str, value: Any = None) -> list[str]:
        """The keys of the clients with this tag."""
        return sorted(seen["lru_key"] for seen in self._look(self._profiles.tagged(name, value)))

    def set_custom(self, key: str | int, name: str, value: Any) -> bool:
        """Keep one value under one name for a client."""
        return self._profiles.set_custom(check_key(key), name, value)

    def custom(self, key: str | int) -> dict[str, Any]:
        """All that is kept for a client."""
        return self._profiles.custom(check_key(key))

    def metadata(self, key: str | int) -> dict[str, Any]:
        """What celery-ranch tells of a client, known or not."""
        look = self.show(key) or {}
        return {
            "lru_key": check_key(key),
            "weight": look.get("weight", 1.0),
            "last_execution": look.get("last_execution"),
            "tags": look.get("tags", {}),
            "custom_data": look.get("custom_data", {}),
            "pending_tasks": look.get("waiting", 0),
        }

    def show(self, key: str | int) -> dict[str, Any] | None:
        """All that is known of a client, or None."""
        return next(iter(self._look([client_of(check_key(key))])), None)

    def all(self) -> Iterator[dict[str, Any]]:
        """All clients, read page by page; ones that come or go meanwhile may be missed."""
        fields = self._backlog.client.hscan_iter(self._backlog.key("clients"), count=_BATCH)
        return self._look(field.decode() for field, _ in fields)

    def _set(self, key: str | int, **fields: Any) -> None:
        label = check_key(key)
        flat = [item for pair in fields.items() for item in pair]
        tickets = tickets_of(self._backlog.run("client", [client_of(label), label, *flat]))
        # What was held may run now. Should the broker be away, idle workers ask for the tickets themselves.
        issue_quietly(self._ranch, tickets)

    def _look(self, digests: Iterable[str]) -> Iterator[dict[str, Any]]:
        rest = iter(digests)
        while page := list(islice(rest, _BATCH)):
            yield from map(_client, self._backlog.run("look", page))


def _client(raw: list[Any]) -> dict[str, Any]:
    profile = read_profile(raw[13])
    return {
        "lru_key": raw[0].decode(),
        "weight": float(raw[1]),
        "last_execution": int(raw[2]) / 1000 if raw[2] else None,
        "waiting": int(raw[3]),
        "in_flight": int(raw[4]),
        "max_in_flight": int(raw[5]) if raw[5] else None,
        "max_backlog": int(raw[6]) if raw[6] else None,
        "paused": bool(raw[7]),
        "draining": bool(raw[8]),
        "served": int(raw[9]),
        "mean_runtime": float(raw[10]) if raw[10] else None,
        "weight_by_function": float(raw[11]) if raw[11] else None,
        "digest": raw[12].decode(),
        "tags": profile.get("tags", {}),
        "custom_data": profile.get("custom_data", {}),
    }
