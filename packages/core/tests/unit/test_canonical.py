"""Canonical encoding: what a task could tell apart gets other bytes, what it could not gets the same, everywhere."""

from __future__ import annotations

import enum
import gc
import math
import os
import shutil
import subprocess
import sys
import weakref
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import celery_toolkit_core
from celery_toolkit_core.canonical import (
    blake2b64,
    bound_arguments,
    call_digest,
    canonical_bytes,
    hash64,
    hash_function,
    key_bytes,
)
from celery_toolkit_core.errors import InvalidParameter


class Colour(enum.Enum):
    RED = 1


class Shade(enum.Enum):
    RED = 1


class Size(str, enum.Enum):
    BIG = "big"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Pixel:
    x: int
    y: int = 0


class Model:
    """As pydantic's."""

    def __init__(self, content):
        self.content = content

    def model_dump(self):
        return self.content


class Jsonable:
    """As kombu's reducers."""

    def __json__(self):
        return {"x": 1}


DIFFERENT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    10**5000,
    1.0,
    0.0,
    math.nan,
    math.inf,
    "",
    "1",
    "a",
    "None",
    "\ud800",
    "\U0001f600",
    "\ud83d\ude00",  # the same character as two surrogates
    b"",
    b"1",
    b"a",
    [],
    [[]],
    [1],
    ["1"],
    [1, 2],
    [[1], 2],
    ["a", "b"],
    ["ab"],
    {},
    {"a": 1},
    {"a": "1"},
    {1: "a"},
    {"1": "a"},
    {"a": {"b": 1}},
    {"a": None},
    set(),
    {1},
    {1, 2},
    datetime(2026, 1, 2),
    datetime(2026, 1, 2, tzinfo=timezone.utc),
    "2026-01-02T00:00:00",
    date(2026, 1, 2),
    "2026-01-02",
    time(1, 2),
    timedelta(1),
    timedelta(0, 1),
    timedelta(0, 0, 1),
    Decimal("1"),
    Decimal("1.0"),
    UUID(int=1),
    str(UUID(int=1)),
    Colour.RED,
    Shade.RED,
    Point(1),
    Pixel(1),
    Point(1, 2),
    Model({"x": 1}),
    Jsonable(),
]


def test_whatever_differs_for_a_task_differs_in_its_bytes():
    encoded = [canonical_bytes(value) for value in DIFFERENT]
    assert len(set(encoded)) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, [2, ()]), [1, (2, [])]),
        (b"x", bytearray(b"x")),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a", "b", "c"}, frozenset(["c", "b", "a"])),
        (0.0, -0.0),
        (math.nan, -math.nan),
        (Size.BIG, "big"),
        (Level.HIGH, 3),
        (Point(1), Point(1, 0)),
        (Model([1]), Model((1,))),
    ],
)
def test_what_serialisers_or_equality_make_one_is_one(one, other):
    assert canonical_bytes(one) == canonical_bytes(other)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


def _typed(value):
    """The value in a form whose == knows types: for Python alone 1 == 1.0 == True."""
    if isinstance(value, list):
        return "list", tuple(_typed(each) for each in value)
    if isinstance(value, dict):
        return "dict", frozenset((_typed(key), _typed(each)) for key, each in value.items())
    return type(value), value


@given(plain, plain)
def test_equal_bytes_mean_equal_values(one, other):
    assert (canonical_bytes(one) == canonical_bytes(other)) == (_typed(one) == _typed(other))


@given(st.lists(plain, max_size=5), st.lists(plain, max_size=5))
def test_neighbours_never_run_into_each_other(one, other):
    """No encoding is the beginning of another one, so a sequence can be read in one way only."""
    joined = b"".join(canonical_bytes(value) for value in one)
    if joined == b"".join(canonical_bytes(value) for value in other):
        assert _typed(one) == _typed(other)


@pytest.mark.parametrize("value", [object(), 1j, range(3), int, len, iter([]), {"a": [object()]}, Path("x"), Model])
def test_other_types_are_refused_with_their_name(value):
    with pytest.raises(InvalidParameter, match="pass plain data"):
        canonical_bytes(value)


def test_what_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(InvalidParameter, match="contains itself"):
        canonical_bytes(loop)


def test_the_format_is_the_same_in_every_version():
    """Golden: a change would move every key and forget every lock while two versions run side by side."""
    value = {"b": [1, 2.5, None, True], "a": ("ä", b"\0"), "c": {Decimal("1.0")}}
    assert canonical_bytes(value) == (
        b"d3:s1:al2:s2:\xc3\xa4b1:\x00s1:bl4:i1;f\x40\x04\x00\x00\x00\x00\x00\x00NTs1:ce1:xs3:1.0"
    )
    assert hash64(canonical_bytes(value)) == 85075312359301239
    assert hash64(b"") == 16476032584258269876


EVERYWHERE = """
import sys, types
# Another Python has core's source, but no distribution of it and no redis.
package = sys.modules["celery_toolkit_core"] = types.ModuleType("celery_toolkit_core")
package.__path__ = [sys.argv[1]]
from celery_toolkit_core.canonical import call_digest
from celery_toolkit_core.ring import HashRing
value = {"set": {"a", "b", "c", 1, 2.5, None}, "dict": {str(i): i for i in range(20)}, "nested": [({"x"},)]}
ring = HashRing({"w%d" % i: 1 + i % 3 for i in range(9)})
print(call_digest("task", value), ring.fingerprint, [ring.get(i) for i in range(20)])
"""


def _interpreters():
    versions = (f"python3.{minor}" for minor in range(10, 16))
    managed = Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python")
    return {path for path in map(shutil.which, versions) if path} | set(map(str, managed)) | {sys.executable}


def test_hash_seeds_and_python_versions_agree():
    source = Path(celery_toolkit_core.__file__).parent
    answers = {}
    for python in sorted(_interpreters()):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            continue  # a name on PATH without a working interpreter behind it
        for seed in ("0", "4711"):
            done = subprocess.run(
                [python, "-c", EVERYWHERE, source],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=False,
            )
            assert not done.returncode, done.stderr
            answers[python, seed] = done.stdout
    assert len(answers) >= 2
    assert len(set(answers.values())) == 1, answers


@pytest.mark.parametrize("name", ["blake2b", "xxh3", "xxh64"])
def test_hashes_by_name_fill_64_bits(name):
    if name != "blake2b":
        pytest.importorskip("xxhash")
    function = hash_function(name)
    values = [hash64(b"%d" % number, function=function) for number in range(200)]
    assert len(set(values)) == 200
    assert all(0 <= value < 2**64 for value in values)
    assert max(values) > 2**63


def test_an_unknown_hash_is_refused():
    with pytest.raises(InvalidParameter, match="give blake2b, xxh3 or xxh64"):
        hash_function("md5")


def test_blake2b64_is_hashlib():
    assert blake2b64(b"abc") == int.from_bytes(blake2b(b"abc", digest_size=8).digest(), "big")


@given(plain, plain)
def test_routing_keys_of_two_types_are_two_keys(one, other):
    assert (key_bytes(one) == key_bytes(other)) == (_typed(one) == _typed(other))


def test_a_text_key_is_its_utf8():
    assert key_bytes("ä") == b"\xc3\xa4"


def one(x, y=2, *rest, z=3, **others):
    pass


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((), {"x": 1}), ((1, 2), {}), ((1,), {"z": 3}), ([], {"y": 2, "x": 1}), ((1,), None)],
)
def test_every_way_to_write_a_call_gives_the_same_arguments(args, kwargs):
    assert bound_arguments(one, args, kwargs) == {"x": 1, "y": 2, "rest": (), "z": 3, "others": {}}


def test_surplus_arguments_stay_apart():
    assert bound_arguments(one, (1, 2, 3), {"q": 4})["rest"] == (3,)
    assert bound_arguments(one, (1, 2, 3), {"q": 4})["others"] == {"q": 4}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
    ],
)
def test_an_impossible_call_is_the_type_error_of_the_call(args, kwargs, message):
    with pytest.raises(TypeError, match=rf"one\(\) {message}"):
        bound_arguments(one, args, kwargs)
    with pytest.raises(TypeError):
        one(*args, **kwargs)


class FakeTask:
    """A Celery task as this module sees it: a name, and run, bound or not."""

    name = "shop.order"

    def __call__(self, *args, **kwargs):
        raise AssertionError

    def run(self, customer, amount=1):
        pass


def test_the_self_of_a_bound_task_is_no_argument():
    assert bound_arguments(FakeTask(), (7,), {}) == {"customer": 7, "amount": 1}
    with pytest.raises(TypeError, match=r"shop\.order\(\) missing"):
        bound_arguments(FakeTask(), (), {})


def test_a_method_and_its_function_are_told_apart():
    task = FakeTask()
    assert bound_arguments(task.run, (7,), {}) == {"customer": 7, "amount": 1}
    assert bound_arguments(FakeTask.run, (task, 7), {}) == {"self": task, "customer": 7, "amount": 1}
    assert bound_arguments(task.run, (7,), {}) == {"customer": 7, "amount": 1}


def test_callables_without_a_signature_keep_what_they_were_given():
    class Silent:
        __signature__ = "none"

        def __call__(self):
            pass

    assert bound_arguments(Silent(), (1,), {"x": 2}) == {"args": (1,), "kwargs": {"x": 2}}


def test_partials_bind_what_is_left():
    assert bound_arguments(partial(one, 1), (5,), {})["y"] == 5


def test_functions_are_not_kept_alive_by_the_cache():
    def temporary(x):
        pass

    bound_arguments(temporary, (1,), {})
    gone = weakref.ref(temporary)
    del temporary
    gc.collect()
    assert gone() is None


def test_call_digest_tells_names_and_arguments_apart():
    digests = {
        call_digest("a", {"x": 1}),
        call_digest("b", {"x": 1}),
        call_digest("a", {"x": 2}),
        call_digest("a", {"y": 1}),
        call_digest("a", {}),
    }
    assert len(digests) == 5
    assert call_digest("a", bound_arguments(one, (1,), {})) == call_digest("a", bound_arguments(one, (), {"x": 1}))
    assert len(call_digest("a", {})) == 32
