"""Turns and places against what they promise, for any order of coming and going."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from celery_chain_router.turns import Places, Turns


@dataclass(eq=False)
class Item:
    """What of an entry matters here."""

    number: int
    key: tuple[int, int] | None


@given(st.lists(st.tuples(st.sampled_from([None, (0, 1), (0, 2), (1, 1)]), st.integers(0, 5))))
def test_one_of_a_key_has_the_turn_and_it_is_the_oldest(steps):
    """Each step lets one come, and then maybe one, picked by chance, go."""
    turns, lines, alone = Turns(), {}, []
    for number, (key, pick) in enumerate(steps):
        item = Item(number, key)
        line = alone if key is None else lines.setdefault(key, [])
        line.append(item)
        assert turns.join(item) == (key is None or line[0] is item)
        if pick < len(line):
            leaver = line[pick]
            line.remove(leaver)
            heir = turns.leave(leaver)
            assert heir is (line[0] if key is not None and pick == 0 and line else None)
            assert turns.leave(leaver) is None
        behind = {}
        for (partition, _), those in lines.items():
            behind[partition] = behind.get(partition, 0) + max(0, len(those) - 1)
        assert {partition: count for partition, count in turns.held_back().items() if count} == {
            partition: count for partition, count in behind.items() if count
        }


def test_places_in_the_order_of_asking_and_no_more_than_there_are():
    places, items = Places(), [Item(number, None) for number in range(4)]
    for item in items:
        places.ask(item)
    assert [places.next(2, lambda _: True) for _ in range(3)] == [items[0], items[1], None]
    places.leave(items[0])
    places.leave(items[2])
    assert places.next(2, lambda _: True) is items[3]
    places.ask(items[0])
    assert places.next(2, lambda _: True) is None
    assert places.next(3, lambda _: True) is items[0]


def test_who_may_not_go_keeps_nobody_waiting_and_may_wait_in_front():
    places, one, two = Places(), Item(1, None), Item(2, None)
    places.ask(one)
    places.ask(two)
    assert places.next(5, lambda item: item is not one) is two
    places.leave(two)
    places.ask(two, in_front=True)
    assert places.next(5, lambda _: True) is two
