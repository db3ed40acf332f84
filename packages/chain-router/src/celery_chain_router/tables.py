"""A table says which queue a hash goes to: what a mode is to the router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .sharing import Sharing


class Lookup(Protocol):
    """A table at one moment: it never changes, so that all of one decision comes from the same. `HashRing` is one."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits: two that show the same send every key to the same queue."""

    def at(self, position: int) -> str:
        """The queue of a hash, from 0 to 2**64 - 1; there must be one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, queue: object) -> bool: ...


class Table(Protocol):
    """What the router asks of a mode."""

    @property
    def lookup(self) -> Lookup:
        """The lookup of now; it costs no I/O, but for the very first time."""

    @property
    def sharing(self) -> Sharing | None:
        """What this process knows of the shared membership; ``None`` until `attach`, and without a Redis."""

    @property
    def is_attached(self) -> bool:
        """Whether `attach` has run."""

    def attach(self, app: Any) -> None:
        """Share the membership through the Redis of an application; a second call does nothing.

        Raises:
            InvalidParameter: A setting ``chain_router_*`` cannot be meant.
        """

    def is_ours(self, queue: str) -> bool:
        """Whether it is a queue of this table, one that is no longer in the lookup included."""

    def companions(self, queue: str) -> Sequence[str]:
        """Endings of further queues beside this one, where another package may have taken a message."""
