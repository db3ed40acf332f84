"""Who may hold a delivery up, and who is told how it ends; see `deliveries`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .deliveries import Delivery
    from .outcomes import Outcome

#: Ranks of gates, in the order in which controls apply: whose turn it is, then whether it may run now.
TURN = 10
CONTROL = 20


class Follower:
    """Is told of the life of a delivery; every method does nothing by default.

    The calls come in the main process, from the event loop or from a thread of the pool, so they must not block for
    long. What they raise is logged and goes no further.
    """

    def accepted(self, delivery: Delivery, pid: int) -> None:
        """The body starts in the process `pid`; with early acknowledgement the message is not acknowledged yet."""

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """The delivery has ended; told exactly once, unless `handed_back` is."""

    def handed_back(self, delivery: Delivery) -> None:
        """A gate took the message from the worker without its having run; it is about to be acknowledged."""


class Gate:
    """Stands between the received message and Celery's own strategy."""

    #: `TURN` or `CONTROL`; lower ranks see the message first.
    rank: ClassVar[int]

    def __call__(self, delivery: Delivery, proceed: Callable[[], None]) -> None:
        """Call `proceed` once, or take the message and call ``delivery.hand_back()``.

        A gate that raises, or does neither, does not lose the message: it goes back to the broker after
        `deliveries.RETURN_DELAY`.
        """
        raise NotImplementedError
