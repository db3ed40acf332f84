"""Consistent hashing with virtual nodes: which node owns a key, and what moves when the nodes change.

Karger et al., "Consistent Hashing and Random Trees" (1997). The owner of a key is the node of the first point at or
after the key's hash, as in Envoy's ring_hash and in ketama; both are reproduced in the tests by passing their hash
functions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from hashlib import blake2b
from itertools import repeat
from struct import unpack
from typing import TYPE_CHECKING, Any

from . import parameters
from .canonical import blake2b64, key_bytes
from .errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .canonical import HashFunction

    PointFunction = Callable[[str, int], Iterable[int]]

#: Points of a node of weight 1. At 10 nodes the busiest then owns about 1.15 times its fair share.
VIRTUAL_NODES = 150

MOST_VIRTUAL_NODES = 10_000
MOST_WEIGHT = 100.0
#: Of one node, after its weight: a ring is memory and time in every process.
MOST_POINTS = 100_000

_SPACE = 2**64


def blake2b_points(node: str, amount: int) -> tuple[int, ...]:
    """The default points: eight per blake2b-512 of ``<node>_<block>``. Point i does not depend on `amount`."""
    # The name is hashed once, and all numbers are read at once: half the time of the obvious loop.
    start = blake2b(node.encode("utf-8", "surrogatepass") + b"_").copy
    blocks = []
    for block in range((amount + 7) // 8):
        state = start()
        state.update(b"%d" % block)
        blocks.append(state.digest())
    return unpack(f">{amount}Q", b"".join(blocks)[: 8 * amount])


def indexed_points(function: HashFunction) -> PointFunction:
    """Points as Envoy's ring_hash makes them: `function` of ``<node>_<i>``."""

    def points(node: str, amount: int) -> Iterator[int]:
        return (function(f"{node}_{index}".encode()) for index in range(amount))

    return points


class HashRing:
    """An immutable ring of named nodes.

    A lookup is one hash and one binary search, without I/O or locks; a ring may be shared by threads. 10 nodes of 150
    points take about 71 KiB. Two rings of the same nodes are the same, in whatever order and process they were built.

    Args:
        nodes: Names, or name -> weight. A node of weight 2 owns about twice the keys of one of weight 1.
        virtual_nodes: Points of a node of weight 1, from 1 to 10,000; more is more even and larger.
        function: Bytes -> whole number below 2**64, for keys. `celery_toolkit_core.canonical.hash_function` has some.
        points: (node, amount) -> so many whole numbers below 2**64; the first n must not depend on `amount`.

    Raises:
        InvalidParameter: A name is empty or no text, a number is out of its range, or a node is given twice.
    """

    __slots__ = (
        "_answers",
        "_fingerprint",
        "_function",
        "_make_points",
        "_names",
        "_owners",
        "_points",
        "_virtual_nodes",
        "_weights",
    )

    def __init__(
        self,
        nodes: Iterable[str] | Mapping[str, float] = (),
        *,
        virtual_nodes: int = VIRTUAL_NODES,
        function: HashFunction = blake2b64,
        points: PointFunction = blake2b_points,
    ) -> None:
        self._virtual_nodes = parameters.count("virtual_nodes", virtual_nodes, most=MOST_VIRTUAL_NODES)
        self._weights = _checked_weights(nodes, virtual_nodes)
        self._function = function
        self._make_points = points
        self._names = list(self._weights)
        owner_of: dict[int, int] = {}
        # Where two nodes meet in one point, the later assignment, so the smaller name, wins in every process.
        for index in range(len(self._names) - 1, -1, -1):
            name = self._names[index]
            owner_of.update(zip(points(name, _amount(self._weights[name], virtual_nodes)), repeat(index), strict=False))
        # A list, not an array: the search would make a number of each entry that it looks at.
        self._points = sorted(owner_of)
        self._owners = array("I", map(owner_of.__getitem__, self._points))
        # Behind the last point comes the first one, and an empty ring answers None: a lookup needs no case for either.
        self._owners.append(self._owners[0] if self._owners else 0)
        self._answers: list[str | None] = [*self._names] or [None]
        self._fingerprint = ""

    def get(self, key: Any) -> str | None:
        """The node that owns a key, or ``None`` on an empty ring.

        Args:
            key: Text, or anything that `canonical_bytes` takes; ``1``, ``"1"`` and ``b"1"`` are three keys.
        """
        try:
            # Half the time of key_bytes(), which gives the same.
            data = key.encode() if type(key) is str else key_bytes(key)
        except UnicodeEncodeError:
            data = key_bytes(key)
        return self._answers[self._owners[bisect_left(self._points, self._function(data))]]

    def successors(self, key: Any, n: int) -> list[str]:
        """The owner of a key and the nodes that follow it on the ring, each once, `n` of them or all there are."""
        parameters.count("n", n)
        start = bisect_left(self._points, self._function(key_bytes(key)))
        found: dict[int, None] = {}
        for owners in (self._owners[start:-1], self._owners[:start]):
            for owner in owners:
                found.setdefault(owner)
                if len(found) == n:
                    return [self._names[each] for each in found]
        return [self._names[each] for each in found]

    def positions(self, node: str) -> list[int]:
        """The points of one node, sorted.

        Raises:
            KeyError: The ring has no such node.
        """
        index = self._names.index(node) if node in self._weights else None
        if index is None:
            raise KeyError(node)
        return [point for point, owner in zip(self._points, self._owners, strict=False) if owner == index]

    def with_node(self, node: str, weight: float = 1.0) -> HashRing:
        """The ring with a node added, or with another weight of it."""
        return self._like({**self._weights, node: weight})

    def without_node(self, node: str) -> HashRing:
        """The ring without a node.

        Raises:
            KeyError: The ring has no such node.
        """
        weights = dict(self._weights)
        del weights[node]
        return self._like(weights)

    def shares(self) -> dict[str, float]:
        """Node -> the share of all hashes that it owns, exact; the shares add up to 1."""
        owned = dict.fromkeys(self._names, 0)
        for width, owner in self._arcs():
            owned[owner] += width
        return {name: width / _SPACE for name, width in owned.items()}

    def moves(self, other: HashRing) -> dict[tuple[str, str], float]:
        """(node here, node there) -> the exact share of all keys that goes from one to the other.

        Args:
            other: The ring after the change.

        Raises:
            InvalidParameter: One of the two has no nodes.
        """
        if not self._points or not other._points:
            raise InvalidParameter("other", len(other), "compare two rings that have nodes")
        moved: defaultdict[tuple[str, str], int] = defaultdict(int)
        before = 0
        for point in [*sorted({*self._points, *other._points}), _SPACE - 1]:
            # All hashes above `before` up to `point` have one owner in each ring.
            pair = (self.at(point), other.at(point))
            if pair[0] != pair[1]:
                moved[pair] += point + 1 - before
            before = point + 1
        return {pair: width / _SPACE for pair, width in moved.items() if width}

    def moved(self, other: HashRing) -> float:
        """The exact share of all keys, from 0 to 1, that another node owns in `other`."""
        return sum(self.moves(other).values())

    @property
    def fingerprint(self) -> str:
        """16 hex digits: two rings that show the same send every key to the same node."""
        if not self._fingerprint:
            state = blake2b(digest_size=8)
            # The hash function cannot be compared over processes, but what it makes of a fixed text can.
            state.update(self._function(b"fingerprint").to_bytes(8, "big"))
            for name in self._names:
                data = name.encode("utf-8", "surrogatepass")
                state.update(len(data).to_bytes(8, "big") + data)
            for point, owner in zip(self._points, self._owners, strict=False):
                state.update(point.to_bytes(8, "big") + owner.to_bytes(4, "big"))
            self._fingerprint = state.hexdigest()
        return self._fingerprint

    @property
    def weights(self) -> dict[str, float]:
        """Node -> weight, sorted by name."""
        return dict(self._weights)

    @property
    def virtual_nodes(self) -> int:
        """Points of a node of weight 1."""
        return self._virtual_nodes

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, node: object) -> bool:
        return node in self._weights

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, HashRing) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<HashRing of {len(self._names)} nodes, {len(self._points)} points, {self.fingerprint}>"

    def _like(self, nodes: Mapping[str, float]) -> HashRing:
        return HashRing(nodes, virtual_nodes=self._virtual_nodes, function=self._function, points=self._make_points)

    def at(self, position: int) -> str:
        """The node that owns a hash that is known already, from 0 to 2**64 - 1; the ring must have a node."""
        return self._names[self._owners[bisect_left(self._points, position)]]

    def _arcs(self) -> Iterator[tuple[int, str]]:
        """(how many hashes, whose) for each stretch that ends at a point; the first begins behind the last point."""
        before = self._points[-1] - _SPACE if self._points else 0
        for point, owner in zip(self._points, self._owners, strict=False):
            yield point - before, self._names[owner]
            before = point


def _checked_weights(nodes: Iterable[str] | Mapping[str, float], virtual_nodes: int) -> dict[str, float]:
    if isinstance(nodes, (str, bytes)):
        raise InvalidParameter("nodes", nodes, "give a list of names, or name -> weight")
    items = nodes.items() if hasattr(nodes, "items") else [(name, 1.0) for name in nodes]
    weights: dict[str, float] = {}
    for name, weight in items:
        parameters.text("node", name)
        if name in weights:
            raise InvalidParameter("node", name, "give each node once")
        remedy = f"give a number above 0, up to {MOST_WEIGHT:g}"
        weights[name] = parameters.positive("weight", weight, remedy=remedy)
        if weights[name] > MOST_WEIGHT:
            raise InvalidParameter("weight", weight, remedy)
        if _amount(weights[name], virtual_nodes) > MOST_POINTS:
            raise InvalidParameter("weight", weight, f"virtual_nodes * weight may be {MOST_POINTS} at most")
    return dict(sorted(weights.items()))


def _amount(weight: float, virtual_nodes: int) -> int:
    return max(1, round(virtual_nodes * weight))
