"""`ChainRouter`: sends calls with the same key to the same worker."""

from __future__ import annotations

import logging
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.canonical import key_bytes
from celery_toolkit_core.ring import HashRing

from .key_rules import KeyRules
from .mark import HEADER, Mark
from .names import weight as checked_weight
from .names import worker_name
from .options import RouterOptions
from .worker_file import WorkerFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from .options import Extractor

logger = logging.getLogger(__name__)


class ChainRouter:
    """A Celery router that keeps each key on one worker, by consistent hashing.

    ``app.conf.task_routes = router`` is all that a producer needs. Every worker consumes the queue of its name.

    Args:
        routing_key: Name of the argument to route by, given by name or by position.
        routing_key_extractor: Function (task name, args, kwargs) -> key; ``None`` falls to the next rule. Keys are
            text, numbers, bytes, UUID, or anything with a canonical form; ``1``, ``"1"`` and ``True`` are three keys.
        virtual_nodes: Points of a worker of weight 1 on the ring, from 1 to 10,000.
        persistent_file: A JSON file of registered workers, shared by processes of this machine; ``~`` is expanded.
        reset_persistent: Remove that file first, whatever it holds.
        hash: ``"blake2b"``; with the extra ``[xxhash]`` also ``"xxh3"`` or ``"xxh64"``; or a function bytes -> whole
            number below 2**64. All processes of an application must use the same.

    Raises:
        InvalidParameter: A parameter cannot be meant.
        WorkerFileError: `persistent_file` cannot be read.
    """

    # No attribute `route_for_task` here: with one, Celery passes neither options nor the task.

    def __init__(
        self,
        routing_key: str | None = None,
        routing_key_extractor: Extractor | None = None,
        virtual_nodes: int = 150,
        persistent_file: str | os.PathLike[str] | None = None,
        reset_persistent: bool = False,
        *,
        hash: str | Callable[[bytes], int] = "blake2b",
    ) -> None:
        options = RouterOptions.parse(
            routing_key=routing_key,
            routing_key_extractor=routing_key_extractor,
            virtual_nodes=virtual_nodes,
            persistent_file=persistent_file,
            reset_persistent=reset_persistent,
            hash=hash,
        )
        self._options = options
        self._rules = KeyRules(options.routing_key, options.extractor)
        self._file = WorkerFile(options.persistent_file) if options.persistent_file else None
        if self._file and options.reset_persistent:
            self._file.reset()
        self._lock = Lock()
        self._registered: dict[str, float] = self._file.read() if self._file else {}
        self._routed: Counter[str] = Counter()
        self._ring = self._build(self._registered)

    @property
    def routing_key(self) -> str | None:
        """Name of the argument that is the key."""
        return self._options.routing_key

    @property
    def routing_key_extractor(self) -> Extractor | None:
        """The function that finds the key."""
        return self._options.extractor

    @property
    def virtual_nodes(self) -> int:
        """Points of a worker of weight 1."""
        return self._options.virtual_nodes

    @property
    def persistent_file(self) -> str | None:
        """The file of registered workers, ``~`` expanded."""
        return str(self._file.path) if self._file else None

    @property
    def worker_positions(self) -> dict[str, list[int]]:
        """Worker -> its positions on the ring, sorted."""
        ring = self.ring
        return {name: ring.positions(name) for name in ring}

    @property
    def ring(self) -> HashRing:
        """The ring that decides now."""
        return self._ring

    def register_worker(self, name: str, *, weight: float = 1) -> list[int]:
        """Put a worker on the ring, or change its weight; registering twice is registering once.

        Args:
            name: The worker's name, which is the name of its queue: 1 to 200 printable characters.
            weight: Its share of the keys against a worker of weight 1; above 0, up to 100.

        Returns:
            Its positions on the ring.

        Raises:
            InvalidParameter: Not a possible name or weight.
            WorkerFileError: The persistent file cannot be written; nothing is registered then.
        """
        name, weight = worker_name(name), checked_weight(weight)

        def add(members: dict[str, float]) -> None:
            members[name] = weight

        self._change(add)
        return self.ring.positions(name)

    def unregister_worker(self, name: str) -> bool:
        """Take a worker off the ring; its keys, and no others, go to the other workers.

        Returns:
            Whether it was there.

        Raises:
            WorkerFileError: The persistent file cannot be written; the worker stays then.
        """
        if name not in self.ring:
            return False

        def remove(members: dict[str, float]) -> None:
            members.pop(name, None)

        self._change(remove)
        return True

    def route_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        task: Any = None,
    ) -> dict[str, Any] | None:
        """Where a call goes by its key; never raises.

        Args:
            name: The task's name.
            args: Positional arguments.
            kwargs: Arguments by name.
            options: Not looked at: a chosen queue is respected where Celery asks, which calls the router itself.
            task: The task, for a `routing_key` that is given by position.

        Returns:
            ``{"queue": worker}``, or ``None`` when there is no worker.
        """
        owner = self._owner(self._hash(name, args, kwargs, task))
        return None if owner is None else {"queue": owner}

    def get_worker_for_key(self, key: Any) -> str | None:
        """The worker to which a call with this routing key goes; ``None`` when there is no worker.

        Raises:
            InvalidParameter: The key has no canonical form.
        """
        return self._at(self._options.hash_function(key_bytes(key)))

    def get_stats(self) -> dict[str, int]:
        """Worker -> how many calls this object has sent to it."""
        return {name: self._routed[name] for name in self.ring}

    def __call__(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        task: Any = None,
        **_: Any,
    ) -> dict[str, Any] | None:
        """Decide for Celery: a route for the call, or ``None`` for Celery's next router or default queue.

        A queue that the caller has chosen stays. A retry, which Celery sends back to the queue it came from, goes to
        the key's worker of today. Routing never raises and does no I/O.
        """
        try:
            return self._decide(name, args, kwargs, {} if options is None else options, task)
        except Exception:
            logger.exception("chain_router_failed task=%s: it goes to the default queue", name)
            return None

    def _decide(
        self,
        name: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: dict[str, Any],
        task: Any,
    ) -> dict[str, Any] | None:
        headers = options.get("headers") or {}
        mark = Mark.read(headers)
        chosen = _chosen(options)
        retried = mark is not None and mark.key is not None and _is_origin(mark, options, task)
        if chosen and not retried:
            if isinstance(chosen, str) and chosen in self.ring:
                options["headers"] = {**headers, HEADER: Mark(chosen).header()}
            return None
        key = self._hash(name, args, kwargs, task)
        owner = self._owner(key)
        if owner is None:
            return None
        for option in ("queue", "exchange", "routing_key", "exchange_type"):
            options.pop(option, None)
        options["headers"] = {**headers, HEADER: Mark(owner, key, self.ring.fingerprint).header()}
        _declare(owner, task)
        return {"queue": owner}

    def _hash(self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, task: Any = None) -> int:
        return self._options.hash_function(self._rules.encoded(name, args, kwargs, task))

    def _owner(self, position: int) -> str | None:
        owner = self._at(position)
        if owner is not None:
            self._routed[owner] += 1
        return owner

    def _at(self, position: int) -> str | None:
        ring = self.ring
        return ring.at(position) if ring else None

    def _change(self, change: Callable[[dict[str, float]], None]) -> None:
        with self._lock:
            members = dict(self._registered)
            change(members)
            ring = self._build(members)
            if self._file:
                # Others may have registered in the file meanwhile: from now on they are ours, too.
                members = self._file.update(change)
                ring = self._build(members)
            self._registered, self._ring = members, ring

    def _build(self, members: Mapping[str, float]) -> HashRing:
        return HashRing(members, virtual_nodes=self._options.virtual_nodes, function=self._options.hash_function)

    def __repr__(self) -> str:
        return f"<ChainRouter of {len(self.ring)} workers, routing_key={self.routing_key!r}>"


def _chosen(options: Mapping[str, Any]) -> Any:
    """The destination that the options name: a queue's name, or anything true for an exchange or a routing key."""
    queue = options.get("queue")
    if queue is not None:
        return getattr(queue, "name", queue)
    return bool(options.get("exchange") or options.get("routing_key"))


def _is_origin(mark: Mark, options: Mapping[str, Any], task: Any) -> bool:
    """Whether the options name the queue that the message of this mark came from, as Celery's ``retry`` does."""
    chosen = _chosen(options)
    if isinstance(chosen, str):
        return chosen == mark.queue
    if not chosen or task is None:
        return False
    # The queue was declared with an exchange of its own: a retry then names that exchange instead of the queue.
    queue = task.app.amqp.queues.get(mark.queue)
    exchange = options.get("exchange")
    return (
        queue is not None
        and getattr(exchange, "name", exchange) == queue.exchange.name
        and options.get("routing_key") == queue.routing_key
    )


def _declare(worker: str, task: Any) -> None:
    """Make a worker's queue known to an application that has ``task_create_missing_queues = False``."""
    if task is None:
        return
    queues = task.app.amqp.queues
    if worker not in queues and not queues.create_missing:
        queues.add(queues.new_missing(worker))
