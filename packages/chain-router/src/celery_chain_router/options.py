"""What a router was asked for: checked once, at construction."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_toolkit_core.canonical import hash_function
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.parameters import count, flag, number, one_of, text
from celery_toolkit_core.ring import MOST_VIRTUAL_NODES

from .partitions import COUNT, PREFIX, Partitions

if TYPE_CHECKING:
    from collections.abc import Callable

    Extractor = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]
    PartitionHook = Callable[[int], object]

_VIRTUAL_NODES = 150

#: The most even balance that can be asked for; evener would take more than `MOST_VIRTUAL_NODES`.
BEST_BALANCE = 1.04
WORST_BALANCE = 2.0
#: So many standard deviations are between a fair share and the largest that is asked for: of ten workers' names, 998 in
#: 1,000 keep it.
_DEVIATIONS = 3.5


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """The parameters of `ChainRouter` in their house form."""

    routing_key: str | None
    extractor: Extractor | None
    virtual_nodes: int
    persistent_file: Path | None
    reset_persistent: bool
    hash_function: Callable[[bytes], int]
    partitions: Partitions | None = None
    on_assign: PartitionHook | None = None
    on_revoke: PartitionHook | None = None

    @classmethod
    def parse(
        cls,
        *,
        routing_key: Any,
        routing_key_extractor: Any,
        virtual_nodes: Any,
        persistent_file: Any,
        reset_persistent: Any,
        balance: Any,
        mode: Any,
        hash: Any,
        partitions: Any = None,
        partition_prefix: Any = None,
        on_assign: Any = None,
        on_revoke: Any = None,
    ) -> RouterOptions:
        """Check each parameter.

        Raises:
            InvalidParameter: One of them cannot be meant.
        """
        of_partitions = {
            "partitions": partitions,
            "partition_prefix": partition_prefix,
            "on_assign": on_assign,
            "on_revoke": on_revoke,
        }
        of_ring = {
            "virtual_nodes": None if virtual_nodes == _VIRTUAL_NODES else virtual_nodes,
            "persistent_file": persistent_file,
            "reset_persistent": reset_persistent or None,
            "balance": balance,
        }
        by_mode = {"ring": of_partitions, "partition": of_ring}
        for name, value in by_mode[one_of("mode", mode, by_mode)].items():
            if value is not None:
                raise InvalidParameter(name, value, f"leave it out: mode={mode!r} has no use for it")
        for name in ("on_assign", "on_revoke"):
            if not (of_partitions[name] is None or callable(of_partitions[name])):
                raise InvalidParameter(name, of_partitions[name], "give a function (number of the partition) -> None")
        if routing_key_extractor is not None and not callable(routing_key_extractor):
            raise InvalidParameter(
                "routing_key_extractor", routing_key_extractor, "give a function (task_name, args, kwargs) -> key"
            )
        return cls(
            routing_key=None if routing_key is None else text("routing_key", routing_key),
            extractor=routing_key_extractor,
            virtual_nodes=_virtual_nodes(virtual_nodes, balance),
            persistent_file=None if persistent_file is None else _path(persistent_file),
            reset_persistent=flag("reset_persistent", reset_persistent),
            hash_function=hash if callable(hash) else hash_function(hash),
            partitions=None
            if mode == "ring"
            else Partitions(
                COUNT if partitions is None else partitions, PREFIX if partition_prefix is None else partition_prefix
            ),
            on_assign=on_assign,
            on_revoke=on_revoke,
        )


def _virtual_nodes(virtual_nodes: Any, balance: Any) -> int:
    """The points of a worker; a number that follows from the balance alone, so that workers may come and go."""
    if balance is None:
        return count("virtual_nodes", virtual_nodes, most=MOST_VIRTUAL_NODES)
    if virtual_nodes != _VIRTUAL_NODES:
        raise InvalidParameter("balance", balance, "give it or virtual_nodes, not both")
    if not BEST_BALANCE <= number("balance", balance) <= WORST_BALANCE:
        raise InvalidParameter("balance", balance, f"give a number from {BEST_BALANCE} to {WORST_BALANCE}")
    # A worker's share of n points deviates by 1 / sqrt(n) of itself.
    points: float = (_DEVIATIONS / (balance - 1)) ** 2
    return math.ceil(points)


def _path(value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise InvalidParameter("persistent_file", value, "give the path of a file")
    return Path(os.fspath(value)).expanduser()
