"""The settings of ranch: ``ranch_*`` of the application, or the dictionary ``app.conf.ranch``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.settings import read_settings, setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery


def _prefix(name: str, value: Any) -> str:
    return parameters.text(name, value, most=128)


def _serializer(name: str, value: Any) -> str:
    return parameters.one_of(name, value, ("json", "pickle"))


def _retries(name: str, value: Any) -> int:
    return parameters.count(name, value, least=0, most=100)


def _metrics(name: str, value: Any) -> bool:
    if parameters.flag(name, value) and find_spec("prometheus_client") is None:
        raise InvalidParameter(name, value, "install celery-toolkit-ranch[prometheus]")
    return bool(value)


def _port(name: str, value: Any) -> int:
    return parameters.count(name, value, most=65535)


@dataclass(frozen=True)
class RanchSettings:
    """What an application may set; spans of time are seconds.

    Attributes:
        redis_prefix: What our keys begin with.
        redis_serializer: ``"json"`` or ``"pickle"``: accepted as celery-ranch did; tasks are stored in the very bytes
            that Celery's own serialiser made, and nothing is ever pickled.
        redis_max_retries: How often a call whose connection breaks is sent again; ``None`` for core's rule (once).
        redis_key_ttl: How long the record of a client without work is kept; ``None`` for ever. Never applies to tasks.
        redis_use_ssl: Use TLS although the URL says ``redis://``.
        redis_socket_timeout: How long a call may take.
        redis_socket_connect_timeout: How long a connect may take.
        metrics_enabled: Workers keep Prometheus metrics in the registry of their main process; needs the extra
            ``[prometheus]``.
        metrics_port: The port at which a worker serves them, if it is to do so itself.
        metrics_clients: Metrics with a label for the client: as many series as clients.
        lease: How long a claimed task is ours without a sign of life of its worker.
        max_attempts: How many workers may die with a task before it is put aside.
        max_payload: Bytes that a message may have.
        block_timeout: How long a call with ``on_full="block"`` waits for room.
        min_replicas: Replicas that must have a task before its call returns; not on a cluster.
        inherit_key: Tasks sent by a task body belong to the body's client unless they name another.
    """

    redis_prefix: str = setting("ranch", _prefix)
    redis_serializer: str = setting("json", _serializer)
    redis_max_retries: int | None = setting(None, _retries)
    redis_key_ttl: float | None = setting(None, parameters.seconds)
    redis_use_ssl: bool = setting(False, parameters.flag)
    redis_socket_timeout: float = setting(2.0, parameters.seconds)
    redis_socket_connect_timeout: float = setting(2.0, parameters.seconds)
    metrics_enabled: bool = setting(False, _metrics)
    metrics_port: int | None = setting(None, _port)
    metrics_clients: bool = setting(False, parameters.flag)
    lease: float = setting(30.0, parameters.seconds)
    max_attempts: int = setting(3, parameters.count)
    max_payload: int = setting(1_000_000, parameters.count)
    block_timeout: float = setting(60.0, parameters.seconds)
    min_replicas: int = setting(0, partial(parameters.count, least=0))
    inherit_key: bool = setting(True, parameters.flag)


def read_ranch_settings(app: Celery, argument: Mapping[str, Any]) -> RanchSettings:
    """The settings of `app`: the `config` argument of `lru_task` wins over ``ranch_*``, that over ``app.conf.ranch``.

    Raises:
        InvalidParameter: A value is not possible, or a dictionary has a key that does not exist.
    """
    known = [each.name for each in fields(RanchSettings)]
    dictionary = app.conf.get("ranch") or {}
    for where, given in (("config", argument), ("app.conf.ranch", dictionary)):
        for name in given:
            if name not in known:
                raise InvalidParameter(where, name, f"there is no such key{parameters.nearest(name, known)}")

    def read(name: str, default: Any) -> Any:
        short = name.removeprefix("ranch_")
        for value in (argument.get(short), app.conf.get(name), dictionary.get(short)):
            if value is not None:
                return value
        return default

    return read_settings(RanchSettings, "ranch", read)
