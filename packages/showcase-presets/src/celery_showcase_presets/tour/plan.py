"""What the one who starts a tour may choose."""

from __future__ import annotations

from dataclasses import dataclass

from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import count


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices, checked.

    Args:
        loop: How many chains the bulk chapter sends.
        delay: Seconds that each heavy task of the first chapters takes.
        only: Names or numbers of chapters; by default all.
        rabbitmq: URL of a RabbitMQ that carries the messages; by default Redis does.
        management: URL of its management API; by default port 15672 of the same host.

    Raises:
        InvalidParameter: One of them cannot be meant.
    """

    loop: int = 12
    delay: float = 0.2
    only: tuple[str, ...] = ()
    rabbitmq: str | None = None
    management: str | None = None

    def __post_init__(self) -> None:
        count("loop", self.loop, most=10_000)
        if not 0 <= self.delay <= 60:
            raise InvalidParameter("delay", self.delay, "give seconds, from 0 to 60")
