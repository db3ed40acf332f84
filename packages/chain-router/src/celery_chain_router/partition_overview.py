"""What an operator sees of partition mode: the partitions, their workers, where a key goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_toolkit_core.canonical import key_bytes

from .discovery import membership_of
from .errors import PartitionsNeedRedis
from .ownership import Owned, Ownership
from .queues import queues_of

if TYPE_CHECKING:
    from .membership import Membership
    from .router import ChainRouter


class Overview:
    """Partition mode of one application, at this moment.

    Args:
        app: The application.
        router: Its router, in partition mode.

    Raises:
        PartitionsNeedRedis: There is no Redis for the leases.
        RedisUnavailable: It does not answer.
    """

    def __init__(self, app: Any, router: ChainRouter) -> None:
        assert router.partitions is not None
        connect = membership_of(app, router.partitions)
        if connect is None:
            raise PartitionsNeedRedis
        self._app = app
        self._router = router
        self.partitions = router.partitions
        self.membership: Membership = connect()
        self._owned = Ownership(self.membership, len(self.partitions)).view()

    def rows(self) -> list[dict[str, Any]]:
        """The partitions: who has each, under which fence, and what is in its queue."""
        queues = queues_of(self._app, self.partitions)
        try:
            waiting, unacknowledged = queues.backlog()
        finally:
            queues.close()
        owned = {each.number: each for each in self._owned}
        nobody = Owned(0, "", 0, False, "")
        return [
            {
                "partition": number,
                "queue": queue,
                "state": _state(owned.get(number, nobody)),
                "owner": owned.get(number, nobody).owner or None,
                "next": owned.get(number, nobody).target or None,
                "fence": owned.get(number, nobody).fence or None,
                "backlog": waiting[number],
                "unacked": unacknowledged[number] if unacknowledged is not None else None,
            }
            for number, queue in enumerate(self.partitions)
        ]

    def workers(self) -> list[dict[str, Any]]:
        """The workers, and how many partitions each has."""
        living = [each.owner for each in self._owned if each.lives]
        targets = [each.target for each in self._owned]
        return [
            {
                "name": name,
                "state": member.state,
                "weight": member.weight,
                "partitions": living.count(name),
                "to_have": targets.count(name),
                "lease_s": round(member.seconds, 1),
                "holder": member.holder,
            }
            for name, member in sorted(self.membership.view().members.items())
        ]

    def where(self, key: Any) -> dict[str, Any]:
        """The partition of a key, who has it, and who is to have it."""
        queue = self.partitions.at(self._router.hash_function(key_bytes(key)))
        number = self.partitions.number(queue)
        found = next((each for each in self._owned if each.number == number), None)
        return {
            "key": key,
            "partition": number,
            "queue": queue,
            "worker": found.owner or None if found and found.lives else None,
            "next": found.target or None if found else None,
        }


def _state(partition: Owned) -> str:
    if partition.lives:
        return "owned" if partition.owner == partition.target else "moving"
    # Its owner died and nobody has taken over yet; or it was released, or never had one.
    return "orphaned" if partition.owner else "free"
