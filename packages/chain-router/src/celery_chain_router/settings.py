"""The settings ``chain_router_*`` of an application, read when they are first needed."""

from __future__ import annotations

from dataclasses import dataclass

from celery_toolkit_core.parameters import count, flag, seconds, text
from celery_toolkit_core.settings import setting

from .names import weight

PREFIX = "chain_router"


@dataclass(frozen=True, slots=True)
class ChainRouterSettings:
    """The settings, each with its default.

    Attributes:
        redis_url: The Redis that holds the membership; by default ``toolkit_redis_url``, the result backend or the
            broker, the first that is a Redis.
        prefix: Beginning of our keys there.
        ring: Name of the ring. Applications that share a Redis but not their workers give each its own.
        lease: Seconds after which a worker that shows no sign of life is taken off the ring.
        weight: A worker's share of the keys against a worker of weight 1.
        top_keys: How many of its hottest keys a worker tells of, 0 to 1,000; see ``celery chain-router top-keys``.
        discovery: Whether workers join by themselves and the membership is shared.
        grace: In partition mode, seconds for which the partitions of a worker that was stopped wait for one of its name
            to come back, before others take them over; 0 for no waiting.
        poll: In partition mode on a Redis broker, seconds between two looks into queues that are empty, at most.
    """

    redis_url: str | None = setting(None, text)
    prefix: str = setting("chain-router", text)
    ring: str = setting("main", text)
    lease: float = setting(30.0, seconds)
    weight: float = setting(1.0, lambda _, value: weight(value))
    top_keys: int = setting(20, lambda name, value: count(name, value, least=0, most=1000))
    discovery: bool = setting(True, flag)
    grace: float = setting(10.0, lambda name, value: seconds(name, value, zero=True))
    poll: float = setting(0.05, seconds)
