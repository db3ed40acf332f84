"""The settings ``showcase_*`` of an application, read when they are first needed."""

from __future__ import annotations

from dataclasses import dataclass

from celery_toolkit_core.connection import mask
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import count, flag, one_of, seconds, text
from celery_toolkit_core.settings import setting

PREFIX = "showcase"


def _store(name: str, value: object) -> str:
    return one_of(name, value, ("redis", "rabbitmq"))


def _web_address(name: str, value: object) -> str:
    address = text(name, value)
    if not address.startswith(("http://", "https://")):
        raise InvalidParameter(name, mask(address), "give the address of the management API: http://host:15672")
    return address


@dataclass(frozen=True, slots=True)
class ShowcaseSettings:
    """The settings, each with its default; times are seconds.

    Attributes:
        redis_url: The Redis that keeps dead letters; by default ``toolkit_redis_url``, the result backend or the
            broker, the first that is a Redis.
        prefix: Beginning of our keys there.
        dead_letters: Whether tasks of our bases leave a letter when they have failed for good.
        dead_letters_store: ``"redis"`` or ``"rabbitmq"``; by default RabbitMQ where that is the broker, else Redis.
        dead_letters_queue: In RabbitMQ, the exchange and the queue of dead letters.
        management_url: RabbitMQ's management API, such as ``http://host:15672``; by default that port of the broker's
            host, with the broker's user.
        dead_letters_most: How many letters are kept; the oldest go first.
        dead_letters_keep: How long a letter is kept.
    """

    redis_url: str | None = setting(None, text)
    prefix: str = setting("showcase", text)
    dead_letters: bool = setting(True, flag)
    dead_letters_store: str | None = setting(None, _store)
    dead_letters_queue: str = setting("showcase.dead", text)
    management_url: str | None = setting(None, _web_address)
    dead_letters_most: int = setting(10_000, count)
    dead_letters_keep: float = setting(30 * 86400.0, seconds)
