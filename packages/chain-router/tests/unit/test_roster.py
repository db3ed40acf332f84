"""Who is on the ring."""

from __future__ import annotations

import pytest

from celery_chain_router.membership import Member, View
from celery_chain_router.roster import on_the_ring


def view(**states: str) -> View:
    return View(1, {name: Member(name, state, weight=2) for name, state in states.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("registered", "seen", "unregistered", "expected"),
    [
        ({}, {}, (), {}),
        ({"a": 1, "b": 1}, {}, (), {"a": 1, "b": 1}),
        ({}, {"a": "up", "b": "draining", "c": "gone"}, (), {"a": 2}),
        # Registered and not seen: on the ring. Seen: its lease decides, and its own weight counts.
        ({"a": 1, "b": 1}, {"b": "up"}, (), {"a": 1, "b": 2}),
        ({"a": 1, "b": 1}, {"b": "gone"}, (), {"a": 1}),
        # Nobody is left: everybody known keeps the calls.
        ({"a": 1}, {"a": "gone", "b": "draining"}, (), {"a": 2, "b": 2}),
        ({"a": 1}, {"a": "up", "b": "up"}, ("a",), {"b": 2}),
        ({}, {"a": "gone", "b": "up"}, ("b",), {"a": 2}),
    ],
)
def test_roster(registered, seen, unregistered, expected):
    assert on_the_ring(registered, view(**seen), unregistered) == expected
