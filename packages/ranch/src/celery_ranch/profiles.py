"""What users keep of clients: tags, and custom data for weight functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.utils import json

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.keys import digest

from .backlog import client_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .backlog import Backlog

#: Attempts to change a profile that others change at the same time.
_ATTEMPTS = 100


class Profiles:
    """Tags and custom data of clients; kept as one JSON document each, opaque to the scripts.

    Args:
        backlog: Where they are.
    """

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def tag(self, key: str, tags: Mapping[str, Any]) -> bool:
        """Put tags on a client; a tag of the same name is replaced."""

        def change(profile: dict[str, Any]) -> None:
            profile.setdefault("tags", {}).update(check_tags(tags))

        return self._change(key, change)

    def tagged(self, name: str, value: Any = None) -> list[str]:
        """The digests of the clients with this tag, of any value or of just this one."""
        parameters.text("tag", name)
        index = tag_digests({name: value})[0 if value is None else 1]
        members = self._backlog.client.zrangebylex(self._backlog.key("tagged"), f"[{index}:", f"({index};")
        return [member.decode().rpartition(":")[2] for member in members]

    def set_custom(self, key: str, name: str, value: Any) -> bool:
        """Keep one value under one name for a client."""
        parameters.text("custom data's key", name)
        _encodable("value", value)

        def change(profile: dict[str, Any]) -> None:
            profile.setdefault("custom_data", {})[name] = value

        return self._change(key, change)

    def custom(self, key: str) -> dict[str, Any]:
        """All custom data of a client."""
        found: dict[str, Any] = read_profile(self._stored(key)).get("custom_data", {})
        return found

    def _stored(self, key: str) -> bytes:
        stored: bytes | None = self._backlog.client.hget(self._backlog.key("profiles"), client_of(key))
        return stored or b""

    def _change(self, key: str, change: Callable[[dict[str, Any]], None]) -> bool:
        for _ in range(_ATTEMPTS):
            stored = self._stored(key)
            profile = read_profile(stored)
            change(profile)
            digests = tag_digests(profile.get("tags", {}))
            if self._backlog.run("profile", [client_of(key), key, stored, json.dumps(profile), *digests]):
                return True
        return False


def read_profile(stored: bytes) -> dict[str, Any]:
    """A stored profile: ``tags`` and ``custom_data``, each if there are any."""
    return json.loads(stored) if stored else {}


def check_tags(tags: Mapping[str, Any] | None) -> dict[str, Any]:
    """Tags in their house form: names are text, values anything that JSON can hold."""
    if tags is None:
        return {}
    if not hasattr(tags, "items"):
        raise InvalidParameter("tags", tags, "give a dictionary of tag names and values")
    return {parameters.text("tag", name): _encodable("tags", value) for name, value in tags.items()}


def tag_digests(tags: Mapping[str, Any]) -> list[str]:
    """Two entries of the index for each tag: its name, and its name with its value."""
    return [each for name, value in tags.items() for each in (digest(name), digest(name, json.dumps(value)))]


def _encodable(parameter: str, value: Any) -> Any:
    try:
        json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise InvalidParameter(parameter, value, f"give what JSON can hold ({error})") from None
    return value
