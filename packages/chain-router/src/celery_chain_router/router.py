"""`ChainRouter`: sends calls with the same key to the same worker."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from celery._state import get_current_app
from celery.utils.saferepr import saferepr

from celery_toolkit_core.canonical import key_bytes
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.log import event

from .destination import chosen_in, declare, drop_destination, is_origin
from .discovery import find_router
from .key_rules import KeyRules
from .mark import HEADER, Mark, routed
from .options import RouterOptions
from .partitions import PartitionTable
from .ring_table import RingTable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from celery_toolkit_core.ring import HashRing

    from .options import Extractor, PartitionHook
    from .partitions import Partitions
    from .sharing import Sharing
    from .tables import Table

logger = logging.getLogger(__name__)

#: Characters of a key that people get to see.
_LONGEST_LABEL = 100


class ChainRouter:
    """A Celery router that keeps each key on one worker, by consistent hashing.

    ``app.conf.task_routes = router`` is all that producers and workers need. Every worker consumes the queue of its
    name. Where the application has a Redis, workers come and go by themselves and all processes share who is there.

    Args:
        routing_key: Name of the argument to route by, given by name or by position.
        routing_key_extractor: Function (task name, args, kwargs) -> key; ``None`` falls to the next rule. Keys are
            text, numbers, bytes, UUID, or anything with a canonical form; ``1``, ``"1"`` and ``True`` are three keys.
        virtual_nodes: Points of a worker of weight 1 on the ring, from 1 to 10,000.
        persistent_file: A JSON file of registered workers, shared by processes of this machine; ``~`` is expanded.
        reset_persistent: Remove that file first, whatever it holds.
        balance: In place of `virtual_nodes`: how many times its fair share the busiest of ten equal workers may own at
            most, from 1.04 to 2. ``1.1`` takes 1,225 points of a worker and 0.6 MiB for ten of them.
        mode: ``"ring"``, a queue per worker and consistent hashing; or ``"partition"``, a fixed number of queues that
            the workers share out among themselves, so that a key's tasks keep their order over every change.
        hash: ``"blake2b"``; with the extra ``[xxhash]`` also ``"xxh3"`` or ``"xxh64"``; or a function bytes -> whole
            number below 2**64. All processes of an application must use the same.
        partitions: In partition mode, how many queues there are (64); 1 to 1,024.
        partition_prefix: In partition mode, what their names begin with (``"chain"``): ``chain.0`` and so on.
        on_assign: In partition mode, called in a worker with the number of a partition before it runs the first task
            of it.
        on_revoke: Likewise, when it has run the last one of it.

    Raises:
        InvalidParameter: A parameter cannot be meant, or belongs to the other mode.
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
        balance: float | None = None,
        mode: Literal["ring", "partition"] = "ring",
        hash: str | Callable[[bytes], int] = "blake2b",
        partitions: int | None = None,
        partition_prefix: str | None = None,
        on_assign: PartitionHook | None = None,
        on_revoke: PartitionHook | None = None,
    ) -> None:
        options = RouterOptions.parse(
            routing_key=routing_key,
            routing_key_extractor=routing_key_extractor,
            virtual_nodes=virtual_nodes,
            persistent_file=persistent_file,
            reset_persistent=reset_persistent,
            balance=balance,
            mode=mode,
            hash=hash,
            partitions=partitions,
            partition_prefix=partition_prefix,
            on_assign=on_assign,
            on_revoke=on_revoke,
        )
        self._options = options
        self._rules = KeyRules(options.routing_key, options.extractor)
        self._ring_table = RingTable(options)
        #: The mode: all that `_decide` asks of it stands in `Table`.
        self._table: Table = PartitionTable(options.partitions) if options.partitions else self._ring_table
        self._routed: Counter[str] = Counter()
        self._declared: set[str] = set()

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
        file = self._ring_table.file
        return str(file.path) if file else None

    @property
    def worker_positions(self) -> dict[str, list[int]]:
        """Worker -> its positions on the ring, sorted."""
        ring = self.ring
        return {name: ring.positions(name) for name in ring}

    @property
    def ring(self) -> HashRing:
        """The ring that decides now."""
        return self._ring_table.lookup

    @property
    def fingerprint(self) -> str:
        """16 hex digits: two routers that show the same send every key to the same queue."""
        return self._table.lookup.fingerprint

    @property
    def partitions(self) -> Partitions | None:
        """The queues of partition mode; ``None`` in ring mode."""
        return self._options.partitions

    @property
    def partition_hooks(self) -> tuple[PartitionHook | None, PartitionHook | None]:
        """What a worker calls for a partition that it gets, and for one that it has given up."""
        return self._options.on_assign, self._options.on_revoke

    @property
    def registered(self) -> list[str]:
        """The workers that were registered by hand, in the order of their registration."""
        return list(self._ring_table.registered)

    @property
    def hash_function(self) -> Callable[[bytes], int]:
        """The hash of keys."""
        return self._options.hash_function

    @property
    def sharing(self) -> Sharing | None:
        """What this process knows of the shared membership; ``None`` until `attach`, and without a Redis."""
        return self._table.sharing

    def attach(self, app: Any) -> Sharing | None:
        """Share the membership through the Redis of an application; Celery's first call of the router does this.

        Nothing is sent yet. A second call does nothing.

        Raises:
            InvalidParameter: A setting ``chain_router_*`` cannot be meant.
        """
        self._table.attach(app)
        return self._table.sharing

    def register_worker(self, name: str, *, weight: float = 1) -> list[int]:
        """Put a worker on the ring, or change its weight; registering twice is registering once.

        Args:
            name: The worker's name, which is the name of its queue: 1 to 200 printable characters.
            weight: Its share of the keys against a worker of weight 1; above 0, up to 100.

        Returns:
            Its positions on the ring.

        Raises:
            InvalidParameter: Not a possible name or weight, or the router is in partition mode.
            WorkerFileError: The persistent file cannot be written; nothing is registered then.
        """
        if self.partitions:
            raise InvalidParameter("mode", "partition", "in partition mode workers are not registered: start them")
        return self._ring_table.register(name, weight)

    def unregister_worker(self, name: str) -> bool:
        """Take a worker off the ring; its keys, and no others, go to the other workers.

        This holds for this process, and for the persistent file. A worker that has joined by itself is taken off for
        everybody by ``celery chain-router drain``.

        Returns:
            Whether it was there.

        Raises:
            WorkerFileError: The persistent file cannot be written; the worker stays then.
        """
        return self._ring_table.unregister(name)

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
        queue = self._at(self._hash(name, args, kwargs, task))
        if queue is None:
            return None
        self._routed[queue] += 1
        return {"queue": queue}

    def get_worker_for_key(self, key: Any) -> str | None:
        """The worker to which a call with this routing key goes; ``None`` when there is no worker.

        In partition mode the queue of its partition: a producer does not know the workers.

        Raises:
            InvalidParameter: The key has no canonical form.
        """
        return self._at(self._options.hash_function(key_bytes(key)))

    def label(
        self, position: int, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, task: Any
    ) -> str:
        """The key of a received call in words; its hash where the sender has found another key than this process."""
        value, data = self._rules.found(name, args, kwargs, task)
        if self._options.hash_function(data) != position:
            return f"{position:016x}"
        return value[:_LONGEST_LABEL] if isinstance(value, str) else str(saferepr(value, maxlen=_LONGEST_LABEL))

    def get_stats(self) -> dict[str, int]:
        """Worker -> how many calls this object has sent to it."""
        return {queue: self._routed[queue] for queue in self._table.lookup}

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
        table = self._table
        if not table.is_attached:
            self._attach_quietly(task)
        lookup = table.lookup
        if not lookup:
            return None
        headers = options.get("headers")
        chosen = chosen_in(options)
        if chosen:
            mark = Mark.read(headers)
            if not is_origin(mark, chosen, options, task, table.companions(mark.queue) if mark else ()):
                if table.is_ours(chosen):
                    options["headers"] = {**(headers or {}), HEADER: Mark(chosen).header()}
                return None
            drop_destination(options)
        key = self._hash(name, args, kwargs, task)
        queue = lookup.at(key)
        self._routed[queue] += 1
        header = {HEADER: routed(queue, key, lookup.fingerprint)}
        options["headers"] = {**headers, **header} if headers else header
        if queue not in self._declared and task is not None:
            declare(queue, task.app)
            self._declared.add(queue)
        return {"queue": queue}

    def _attach_quietly(self, task: Any) -> None:
        app = task.app if task is not None else get_current_app()
        # A bare name says nothing of its application, and the current one may be another than this router's.
        if task is None and find_router(app) is not self:
            return
        try:
            self.attach(app)
        except InvalidParameter as error:  # it stops workers at their start; a producer goes on with what it has
            event(logger, logging.ERROR, "chain_router_not_shared", error=str(error))

    def _hash(self, name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, task: Any = None) -> int:
        return self._options.hash_function(self._rules.found(name, args, kwargs, task)[1])

    def _at(self, position: int) -> str | None:
        lookup = self._table.lookup
        return lookup.at(position) if lookup else None

    def __repr__(self) -> str:
        return f"<ChainRouter of {len(self.ring)} workers, routing_key={self.routing_key!r}>"
