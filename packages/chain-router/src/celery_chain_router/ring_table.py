"""The table of ring mode: workers on a hash ring, registered by hand or shared through Redis."""

from __future__ import annotations

import os
import random
from threading import Lock
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.celery.forwarding import forward
from celery_toolkit_core.ring import HashRing

from .discovery import membership_of
from .mark import Mark, owner_of_today
from .membership import View
from .names import weight as checked_weight
from .names import worker_name
from .roster import on_the_ring
from .sharing import Sharing
from .worker_file import WorkerFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .options import RouterOptions


class RingTable:
    """Each worker has a queue of its own, and owns the hashes in front of its points on the ring.

    Args:
        options: What the router was asked for.

    Raises:
        WorkerFileError: The persistent file cannot be read.
    """

    def __init__(self, options: RouterOptions) -> None:
        self._options = options
        self.file = WorkerFile(options.persistent_file) if options.persistent_file else None
        if self.file and options.reset_persistent:
            self.file.reset()
        self.sharing: Sharing | None = None
        self.is_attached = False
        self._lock, self._pid = Lock(), os.getpid()
        self.registered: dict[str, float] = self.file.read() if self.file else {}
        self._unregistered: frozenset[str] = frozenset()
        self._ring = self._build(self.registered)

    @property
    def lookup(self) -> HashRing:
        """The ring of now."""
        if self.sharing is not None:
            self.sharing.touch()
        return self._ring

    def attach(self, app: Any) -> None:
        """Share the membership through the Redis of an application; a second call does nothing.

        Raises:
            InvalidParameter: A setting ``chain_router_*`` cannot be meant.
        """
        if self.is_attached:
            return
        try:
            connect = membership_of(app)
            if connect is not None:
                self.sharing = Sharing(connect, self._adopt)
                forward(app, self.forward)
        finally:
            # Last: another thread that sees it set must find the sharing, too.
            self.is_attached = True

    def is_ours(self, queue: str) -> bool:
        """Whether it is a worker's queue; a dead one's, too: what is sent there waits for it, adopted by no other."""
        return queue in self._ring or (self.sharing is not None and queue in self.sharing.view.members)

    def companions(self, queue: str) -> Sequence[str]:
        """Endings of further queues that the worker consumes."""
        member = self.sharing.view.members.get(queue) if self.sharing else None
        return member.companions if member else ()

    def forward(self, queue: str, headers: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Where a message belongs that was kept for a worker's queue; see `celery_toolkit_core.celery.forwarding`.

        What has a key goes to its owner of today. What has none leaves only the queue of a worker that is gone.
        """
        ring = self.lookup
        worker = queue if self.is_ours(queue) else queue.rpartition(".")[0]
        if not ring or not self.is_ours(worker):
            return None
        if worker in ring and Mark.read(headers) is None:
            return None
        found = owner_of_today(headers, ring, lambda: random.getrandbits(64))
        if found is None:
            return None
        owner, changes = found
        return owner + queue.removeprefix(worker), changes

    def register(self, name: str, weight: float) -> list[int]:
        """Put a worker on the ring by hand; its positions.

        Raises:
            InvalidParameter: Not a possible name or weight.
            WorkerFileError: The persistent file cannot be written; nothing is registered then.
        """
        name, weight = worker_name(name), checked_weight(weight)
        # Before anything is written: it refuses points without bound.
        positions = self._build({name: weight}).positions(name)

        def add(members: dict[str, float]) -> None:
            members[name] = weight

        with self._guard():
            self._change(add, self._unregistered - {name})
        return positions

    def unregister(self, name: str) -> bool:
        """Take a worker off the ring of this process, and out of the persistent file; whether it was there.

        Raises:
            WorkerFileError: The persistent file cannot be written; the worker stays then.
        """
        if name not in self.lookup:
            return False

        def remove(members: dict[str, float]) -> None:
            members.pop(name, None)

        with self._guard():
            self._change(remove, self._unregistered | {name})
        return True

    def _change(self, change: Callable[[dict[str, float]], None], unregistered: frozenset[str]) -> None:
        """Change who is registered by hand; the caller holds the lock."""
        members = dict(self.registered)
        change(members)
        if self.file:
            # Others may have registered in the file meanwhile: from now on they are ours, too.
            members = self.file.update(change)
        self.registered, self._unregistered = members, unregistered
        self._rebuild()

    def _guard(self) -> Lock:
        # A fork may have copied the lock while a thread, which the child does not have, held it.
        if self._pid != os.getpid():
            self._lock, self._pid = Lock(), os.getpid()
        return self._lock

    def _adopt(self, view: View) -> None:
        """Take over a new view of the membership; called in the thread that has read it."""
        with self._guard():
            self._rebuild()

    def _rebuild(self) -> None:
        view = self.sharing.view if self.sharing else View()
        self._ring = self._build(on_the_ring(self.registered, view, self._unregistered))

    def _build(self, members: Mapping[str, float]) -> HashRing:
        return HashRing(members, virtual_nodes=self._options.virtual_nodes, function=self._options.hash_function)
