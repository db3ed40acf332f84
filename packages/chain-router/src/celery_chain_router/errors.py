"""The errors of chain-router; every one derives from `ChainRouterError`, carries its data and pickles."""

from __future__ import annotations

from celery_toolkit_core.errors import ToolkitError


class ChainRouterError(ToolkitError):
    """The root of all errors that chain-router raises on purpose, bad parameters apart (`InvalidParameter`)."""


class WorkerFileError(ChainRouterError):
    """The persistent file cannot be read or written; what it held before is still there.

    Attributes:
        path: The file.
        reason: What is the matter with it.
    """

    path: str
    reason: str

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"persistent_file={path!r} cannot be used: {reason}", path=path, reason=reason)


class WorkerNameTaken(ChainRouterError):
    """A worker of that name is alive; each name has one owner.

    Attributes:
        name: The worker's name, the part of ``-n`` in front of the ``@``.
        holder: Who has it: node name and process id.
        remaining: Seconds until its lease ends, unless it gives a sign of life.
    """

    name: str
    holder: str
    remaining: float

    def __init__(self, name: str, holder: str, remaining: float) -> None:
        super().__init__(
            f"the worker name {name!r} is taken by {holder}, which is alive; start this one with another -n, "
            "or without -n to get a free slot",
            name=name,
            holder=holder,
            remaining=remaining,
        )


class RouterNotFound(ChainRouterError):
    """The application has no ChainRouter in its ``task_routes``."""


class PartitionCountDiffers(ChainRouterError):
    """Living workers of the ring have another number of partitions, so keys would go to two places.

    Attributes:
        partitions: The number that this process was given.
        others: The number that the others have.
    """

    partitions: int
    others: int

    def __init__(self, partitions: int, others: int) -> None:
        super().__init__(
            f"partitions={partitions}, but the workers that run have {others}; give the same, or let the queues run "
            "empty and stop all workers before you change it",
            partitions=partitions,
            others=others,
        )


class BrokerNotSupported(ChainRouterError):
    """Partition mode hands queues over in order, which it can do on Redis and RabbitMQ only.

    Attributes:
        transport: What kombu calls the broker's transport.
    """

    transport: str

    def __init__(self, transport: str) -> None:
        super().__init__(
            f"mode='partition' needs a Redis or RabbitMQ broker, not {transport!r}; use mode='ring'",
            transport=transport,
        )


class PartitionsNeedRedis(ChainRouterError):
    """In partition mode the workers share the queues out among themselves, in a Redis."""

    def __init__(self) -> None:
        super().__init__(
            "mode='partition' needs a Redis for the leases of its workers: set chain_router_redis_url, and leave "
            "chain_router_discovery at True"
        )
