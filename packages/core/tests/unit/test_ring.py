"""The hash ring: owners, balance, minimal movement, and two other systems' rings as oracles."""

from __future__ import annotations

import pickle
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_toolkit_core.canonical import blake2b64, hash_function
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.ring import HashRing, blake2b_points, indexed_points

KEYS = [f"customer:{number}" for number in range(2000)]

names = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=8)
weights = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.1, 5), min_size=1, max_size=8)


def ring(nodes, **options):
    return HashRing(nodes, **{"virtual_nodes": 20, **options})


# --- oracles -----------------------------------------------------------------------------------------------------


def test_envoys_published_points():
    """Envoy's own test, RingHashLoadBalancerTest.Basic: six hosts of two points each, and whom it picks for a hash."""
    pytest.importorskip("xxhash")
    xxh64 = hash_function("xxh64")
    hosts = {f"127.0.0.1:{port}": 1 for port in range(90, 96)}
    ours = HashRing(hosts, virtual_nodes=2, function=xxh64, points=indexed_points(xxh64))
    published = [
        (833437586790550860, 94),
        (928266305478181108, 92),
        (1033482794131418490, 90),
        (3551244743356806947, 95),
        (3851675632748031481, 93),
        (5583722120771150861, 91),
        (6311230543546372928, 91),
        (7700377290971790572, 93),
        (13144177310400110813, 95),
        (13444792449719432967, 92),
        (15516499411664133160, 94),
        (16117243373044804889, 90),
    ]
    assert sorted((point, int(host[-2:])) for host in hosts for point in ours.positions(host)) == published
    picked = {0: 94, 2**64 - 1: 94, 3551244743356806947: 95, 3551244743356806948: 93}
    for number, port in picked.items():
        fixed = HashRing(hosts, virtual_nodes=2, function=lambda _, number=number: number, points=indexed_points(xxh64))
        assert fixed.get("any") == f"127.0.0.1:{port}"


def _ketama(data: bytes) -> int:
    return int.from_bytes(md5(data).digest()[:4], "little")


def _ketama_points(node: str, amount: int):
    for index in range(amount // 4):
        digest = md5(f"{node}-{index}".encode()).digest()
        for part in range(4):
            yield int.from_bytes(digest[4 * part : 4 * part + 4], "little")


@pytest.mark.parametrize("amount", [1, 3, 10])
def test_ketama_as_uhashring_does_it(amount):
    uhashring = pytest.importorskip("uhashring")
    nodes = [f"10.0.1.{number}:11211" for number in range(amount)]
    theirs = uhashring.HashRing(nodes=nodes, hash_fn="ketama")
    ours = HashRing(nodes, virtual_nodes=160, function=_ketama, points=_ketama_points)
    assert [(point, name) for point, name in theirs.get_points()] == sorted(
        (point, name) for name in nodes for point in ours.positions(name)
    )
    assert [ours.get(key) for key in KEYS] == [theirs.get_node(key) for key in KEYS]
    assert [ours.successors(key, amount) for key in KEYS[:50]] == [list(theirs.iterate_nodes(key)) for key in KEYS[:50]]


# --- properties --------------------------------------------------------------------------------------------------


@given(names, st.randoms())
def test_order_of_the_nodes_does_not_matter(nodes, random):
    shuffled = sorted(nodes)
    random.shuffle(shuffled)
    one, other = ring(nodes), ring(shuffled)
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert hash(one) == hash(other)
    assert [one.get(key) for key in KEYS[:50]] == [other.get(key) for key in KEYS[:50]]


@given(weights, st.text("xyz", min_size=1, max_size=3), st.floats(0.1, 5))
def test_a_new_node_takes_keys_and_moves_none_between_the_others(nodes, new, weight):
    before = ring(nodes)
    after = before.with_node(new, weight)
    assert all(target == new for _, target in before.moves(after))
    for key in KEYS[:100]:
        assert after.get(key) in (before.get(key), new)
    assert after.without_node(new) == before


@given(weights)
def test_moves_and_shares_are_exact(nodes):
    """Checked against the points themselves: each stretch between two points belongs to one node."""
    before = ring(nodes)
    gone = min(nodes)
    assert sum(before.shares().values()) == pytest.approx(1.0)
    assert before.moved(before) == 0
    if len(nodes) > 1:
        after = before.without_node(gone)
        assert before.moved(after) == pytest.approx(before.shares()[gone])
        assert after.moved(before) == pytest.approx(before.shares()[gone])
        gained = {name: share - before.shares()[name] for name, share in after.shares().items()}
        moved = {target: share for (_, target), share in before.moves(after).items()}
        assert all(gained[name] == pytest.approx(moved.get(name, 0.0)) for name in gained)


@given(names, st.integers(1, 10), st.sampled_from(KEYS))
def test_successors_begin_with_the_owner_and_name_each_node_once(nodes, n, key):
    found = ring(nodes).successors(key, n)
    assert found[0] == ring(nodes).get(key)
    assert len(found) == len(set(found)) == min(n, len(nodes))


@given(names, st.sampled_from(KEYS))
def test_the_second_successor_inherits_when_the_owner_leaves(nodes, key):
    whole = ring(nodes)
    owner, *rest = whole.successors(key, 2)
    assert whole.without_node(owner).get(key) == (rest[0] if rest else None)


@settings(max_examples=20)
@given(st.floats(0.2, 4))
def test_a_new_weight_only_moves_keys_to_or_from_that_node(weight):
    before = ring(["a", "b", "c"])
    after = before.with_node("b", weight)
    assert all("b" in pair for pair in before.moves(after))


# --- figures -----------------------------------------------------------------------------------------------------


def test_ten_nodes_share_evenly_and_one_that_leaves_moves_its_share_only():
    nodes = [f"worker{number}" for number in range(10)]
    whole = HashRing(nodes)
    assert max(whole.shares().values()) * 10 < 1.25
    assert whole.moved(whole.without_node("worker3")) == pytest.approx(whole.shares()["worker3"])


def test_weight_two_owns_twice_as_much():
    shares = HashRing({"big": 2, "small": 1}, virtual_nodes=1000).shares()
    assert shares["big"] / shares["small"] == pytest.approx(2, rel=0.15)


def test_the_ring_is_the_same_in_every_version():
    """Golden: a change here would move every key of every user."""
    whole = HashRing([f"worker{number}" for number in range(10)])
    assert whole.fingerprint == "238abe62b7887db6"
    assert list(blake2b_points("worker0", 2)) == [17047763112901598618, 16442444632955739499]


def test_points_of_a_node_do_not_depend_on_how_many_are_asked():
    assert list(blake2b_points("w", 150))[:13] == list(blake2b_points("w", 13))
    assert list(blake2b_points("w", 0)) == []


# --- keys and edges ----------------------------------------------------------------------------------------------


def test_keys_of_different_types_are_different_and_all_are_taken():
    seen = []
    HashRing(["a"], function=lambda data: seen.append(data) or 0).get("1")
    whole = HashRing(["a"], function=lambda data: seen.append(data) or 0)
    for key in (1, "1", b"1", True, 1.0, None, (1,), "\ud800", "ä"):
        assert whole.get(key) == "a"
        assert whole.successors(key, 1) == ["a"]
    # get and successors make the same bytes of a key
    assert len(set(seen[1:])) == 9
    assert seen[1::2] == seen[2::2]


def test_a_hash_that_is_known_already_has_the_owner_of_its_key():
    nodes = ring(["a", "b", "c"])
    assert all(nodes.at(blake2b64(key.encode())) == nodes.get(key) for key in KEYS)


def test_an_unhashable_kind_of_key_is_a_clear_error():
    with pytest.raises(InvalidParameter, match="pass plain data"):
        ring(["a"]).get(object())


def test_the_empty_ring_owns_nothing():
    empty = HashRing()
    assert empty.get("x") is None
    assert empty.successors("x", 3) == []
    assert (len(empty), list(empty), empty.shares()) == (0, [], {})
    assert empty.with_node("a").get("x") == "a"
    with pytest.raises(InvalidParameter):
        empty.moves(ring(["a"]))
    with pytest.raises(InvalidParameter):
        ring(["a"]).moves(empty)


def test_first_and_last_point_of_the_space():
    whole = HashRing(["a", "b"], virtual_nodes=1, points=lambda node, _: {"a": [0], "b": [2**64 - 1]}[node])
    assert whole.shares() == {"a": pytest.approx(0.0), "b": pytest.approx(1.0)}
    assert whole.moved(whole.without_node("b")) == pytest.approx(1.0)
    at = {0: "a", 1: "b", 2**64 - 1: "b"}
    for position, node in at.items():
        fixed = HashRing(
            ["a", "b"],
            virtual_nodes=1,
            function=lambda _, position=position: position,
            points=lambda node, _: {"a": [0], "b": [2**64 - 1]}[node],
        )
        assert fixed.get("any") == node


def test_a_single_hash_that_moves_is_counted():
    before = HashRing(["a", "b"], virtual_nodes=1, points=lambda node, _: {"a": [5], "b": [6]}[node])
    assert before.moves(before.without_node("b")) == {("b", "a"): 2**-64}
    assert before.moves(before.without_node("a")) == {("a", "b"): 1 - 2**-64}


def test_where_two_nodes_meet_in_a_point_the_smaller_name_wins_in_any_order():
    for order in (["a", "b"], ["b", "a"]):
        assert HashRing(order, virtual_nodes=1, points=lambda *_: [7]).get("x") == "a"


def test_rings_with_other_hash_functions_are_other_rings():
    assert ring(["a", "b"]) != ring(["a", "b"], function=lambda data: blake2b64(data + b"!"))
    assert ring(["a", "b"]) != ring(["a", "c"])
    assert ring(["a", "b"]) != ring({"a": 1, "b": 2})
    assert ring(["a"]) != "a"


def test_a_ring_is_a_collection_of_its_nodes():
    whole = ring({"b": 2, "a": 1})
    assert list(whole) == ["a", "b"]
    assert "a" in whole
    assert "c" not in whole
    assert whole.weights == {"a": 1.0, "b": 2.0}
    assert whole.virtual_nodes == 20
    assert len(whole.positions("a")) == 20
    assert len(whole.positions("b")) == 40
    assert "2 nodes" in repr(whole)


def test_a_ring_pickles():
    whole = ring({"b": 2, "a": 1})
    again = pickle.loads(pickle.dumps(whole))
    assert again == whole
    assert again.get("x") == whole.get("x")


def test_what_is_not_there_cannot_be_removed_or_shown():
    with pytest.raises(KeyError):
        ring(["a"]).without_node("b")
    with pytest.raises(KeyError):
        ring(["a"]).positions("b")


@pytest.mark.parametrize("virtual_nodes", [0, -1, 1.5, 10_001, True, "150", None])
def test_impossible_virtual_nodes(virtual_nodes):
    with pytest.raises(InvalidParameter) as caught:
        HashRing(["a"], virtual_nodes=virtual_nodes)
    assert caught.value.parameter == "virtual_nodes"


@pytest.mark.parametrize("weight", [0, -1, 100.1, 10**9, float("nan"), float("inf"), True, "1", None])
def test_impossible_weights(weight):
    with pytest.raises(InvalidParameter) as caught:
        HashRing({"a": weight})
    assert caught.value.parameter == "weight"


def test_a_weight_may_not_make_a_ring_without_bound():
    with pytest.raises(InvalidParameter, match="100000 at most"):
        HashRing({"a": 100}, virtual_nodes=10_000)


@pytest.mark.parametrize("nodes", [[""], [None], [5], ["a", "a"], "worker1", b"worker1", ["\ud800"]])
def test_impossible_nodes(nodes):
    with pytest.raises(InvalidParameter):
        HashRing(nodes)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_impossible_numbers_of_successors(n):
    with pytest.raises(InvalidParameter):
        ring(["a"]).successors("x", n)
