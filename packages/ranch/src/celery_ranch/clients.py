"""Clients: weights, tags, custom data, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.utils import json

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter, RedisError
from celery_toolkit_core.keys import digest

from .application import issue_quietly, ranch_of
from .backlog import client_of
from .entries import tickets_of
from .options import check_key, check_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from celery import Celery

    from .application import Ranch

#: Attempts to change a profile that others change at the same time.
_ATTEMPTS = 100

#: Tasks that one run of a script throws away.
_PURGE_BATCH = 500


class Clients:
    """The clients of one application: what is kept of them, and what an operator may tell them.

    Args:
        app: The Celery application.
    """

    def __init__(self, app: Celery) -> None:
        self._ranch = ranch_of(app)
        self._backlog = self._ranch.backlog

    def set_weight(self, key: str | int, weight: float) -> bool:
        """Set a client's weight: 0.5 is served twice as often as 1.0. Its place in the line does not change."""
        self._set(key, w=repr(check_weight("weight", weight)))
        return True

    def set_max_in_flight(self, key: str | int, most: int | None) -> None:
        """Let at most `most` tasks of a client be in flight at a time; None takes the cap away."""
        self._set(key, x="" if most is None else parameters.count("max_in_flight", most))

    def set_max_backlog(self, key: str | int, most: int | None) -> None:
        """Let at most `most` tasks of a client wait, `BacklogFull` above that; None takes the limit away."""
        self._set(key, y="" if most is None else parameters.count("max_backlog", most))

    def pause(self, key: str | int) -> None:
        """Let nothing of this client begin until `resume`; what runs goes on, what is sent waits."""
        self._set(key, h="1")

    def resume(self, key: str | int) -> None:
        """End a pause."""
        self._set(key, h="")

    def purge(self, key: str | int) -> int:
        """Throw away what a client has waiting, in all queues; what is in flight or scheduled stays.

        Returns:
            The number of tasks thrown away.
        """
        queues = self._backlog.queues()
        purged = 0
        while count := int(self._backlog.run("purge", [client_of(check_key(key)), _PURGE_BATCH, *queues])):
            purged += count
        return purged

    def tag(self, key: str | int, tags: Mapping[str, Any]) -> bool:
        """Put tags on a client; a tag of the same name is replaced."""

        def change(profile: dict[str, Any]) -> None:
            profile.setdefault("tags", {}).update(check_tags(tags))

        return self._change(check_key(key), change)

    def tagged(self, name: str, value: Any = None) -> list[str]:
        """The keys of the clients with this tag."""
        parameters.text("tag", name)
        index = _index({name: value})[0 if value is None else 1]
        members = self._backlog.client.zrangebylex(self._backlog.key("tagged"), f"[{index}:", f"({index};")
        labels = [self._look(member.decode().rpartition(":")[2]) for member in members]
        return sorted(look["lru_key"] for look in labels if look)

    def set_custom(self, key: str | int, name: str, value: Any) -> bool:
        """Keep one value under one name for a client."""
        parameters.text("custom data's key", name)
        _encodable("value", value)

        def change(profile: dict[str, Any]) -> None:
            profile.setdefault("custom_data", {})[name] = value

        return self._change(check_key(key), change)

    def custom(self, key: str | int) -> dict[str, Any]:
        """All that is kept for a client."""
        found: dict[str, Any] = self._profile(check_key(key))[1].get("custom_data", {})
        return found

    def metadata(self, key: str | int) -> dict[str, Any]:
        """What celery-ranch tells of a client, known or not."""
        label = check_key(key)
        look = self._look(client_of(label)) or {}
        return {
            "lru_key": label,
            "weight": look.get("weight", 1.0),
            "last_execution": look.get("last_execution"),
            "tags": look.get("tags", {}),
            "custom_data": look.get("custom_data", {}),
            "pending_tasks": look.get("waiting", 0),
        }

    def show(self, key: str | int) -> dict[str, Any] | None:
        """All that is known of a client, or None."""
        return self._look(client_of(check_key(key)))

    def all(self) -> Iterator[dict[str, Any]]:
        """All clients, read page by page; ones that come or go meanwhile may be missed."""
        for field, _ in self._backlog.client.hscan_iter(self._backlog.key("clients"), count=200):
            look = self._look(field.decode())
            if look:
                yield look

    def _set(self, key: str | int, **fields: Any) -> None:
        label = check_key(key)
        flat = [item for pair in fields.items() for item in pair]
        tickets = tickets_of(self._backlog.run("client", [client_of(label), label, *flat]))
        # What was held may run now. Should the broker be away, idle workers ask for the tickets themselves.
        issue_quietly(self._ranch, tickets)

    def _profile(self, key: str) -> tuple[bytes, dict[str, Any]]:
        raw = self._backlog.run("look", [client_of(key)])
        stored: bytes = raw[10] if raw else b""
        return stored, json.loads(stored) if stored else {}

    def _change(self, key: str, change: Callable[[dict[str, Any]], None]) -> bool:
        for _ in range(_ATTEMPTS):
            stored, profile = self._profile(key)
            before = set(_index(profile.get("tags", {})))
            change(profile)
            after = set(_index(profile.get("tags", {})))
            gone = sorted(before - after)
            arguments = [client_of(key), key, stored, json.dumps(profile), len(gone), *gone, *sorted(after - before)]
            if self._backlog.run("profile", arguments):
                return True
        return False

    def _look(self, client: str) -> dict[str, Any] | None:
        raw = self._backlog.run("look", [client])
        if not raw:
            return None
        profile = json.loads(raw[10]) if raw[10] else {}
        return {
            "lru_key": raw[0].decode(),
            "weight": float(raw[1]),
            "last_execution": int(raw[2]) / 1000 if raw[2] else None,
            "waiting": int(raw[3]),
            "in_flight": int(raw[4]),
            "max_in_flight": int(raw[5]) if raw[5] != b"" else None,
            "max_backlog": int(raw[6]) if raw[6] != b"" else None,
            "paused": bool(raw[7]),
            "served": int(raw[8]),
            "mean_runtime": float(raw[9]) if raw[9] else None,
            "weight_by_function": float(raw[11]) if raw[11] else None,
            "tags": profile.get("tags", {}),
            "custom_data": profile.get("custom_data", {}),
        }


def check_tags(tags: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tags in their house form: names are text, values anything that JSON can hold."""
    if tags is None:
        return {}
    if not hasattr(tags, "items"):
        raise InvalidParameter("tags", tags, "give a dictionary of tag names and values")
    return {parameters.text("tag", name): _encodable("tags", value) for name, value in tags.items()}


def delay_options(priority_weight: Any, expiry: Any) -> dict[str, Any]:
    """The two options of `lru_delay` as options of `apply_async`."""
    options: dict[str, Any] = {}
    if priority_weight is not None:
        options["lru_weight"] = check_weight("priority_weight", priority_weight)
    if expiry is not None:
        options["expires"] = parameters.seconds("expiry", expiry)
    return options


def status(ranch: Ranch) -> dict[str, Any]:
    """The backlog as a whole, in celery-ranch's words; a Redis that is away is told, not raised."""
    try:
        seen = ranch.backlog.audit()
    except RedisError as error:
        return {
            "initialized": False,
            "storage_type": "redis",
            "backlog_size": 0,
            "unique_lru_keys": 0,
            "health": f"error: {error}",
        }
    return {
        "initialized": True,
        "storage_type": "redis",
        "backlog_size": seen["waiting"] + seen["scheduled"],
        "unique_lru_keys": seen["clients"],
        "health": "ok",
    }


def audit(app: Celery) -> dict[str, int]:
    """Where every task that was ever submitted is, at one moment; ``missing`` is 0 unless something was lost."""
    seen = ranch_of(app).backlog.audit()
    places = ("scheduled", "waiting", "in_flight", "dead", "done", "expired", "revoked", "abandoned", "handed_back")
    seen["missing"] = seen["submitted"] - sum(seen[name] for name in (*places, "purged"))
    return seen


def _encodable(parameter: str, value: Any) -> Any:
    try:
        json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise InvalidParameter(parameter, value, f"give what JSON can hold ({error})") from None
    return value


def _index(tags: Mapping[str, Any]) -> list[str]:
    return [each for name, value in tags.items() for each in (digest(name), digest(name, json.dumps(value)))]
