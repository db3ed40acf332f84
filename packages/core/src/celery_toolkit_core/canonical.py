"""One bytes form per value and one 64-bit hash per bytes: equal in every process, machine and Python version."""

from __future__ import annotations

import inspect
import struct
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

from .errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    HashFunction = Callable[[bytes], int]


def canonical_bytes(value: Any) -> bytes:
    """Encode a value so that two values get the same bytes only if a task could not tell them apart.

    Each value begins with a tag of its type and says its length, so that no two encodings can be confused: ``1``,
    ``1.0``, ``True``, ``"1"`` and ``b"1"`` differ. Equal on purpose:

    * a list and a tuple, and ``bytes`` and ``bytearray``: serialisers turn one into the other;
    * a member of an ``int`` or ``str`` enumeration and its plain value, for the same reason;
    * dicts and sets in any order; ``0.0`` and ``-0.0``; all NaN.

    A date with an offset is its wall time with that offset; ``Decimal("1.0")`` and ``Decimal("1.00")`` differ.
    A dataclass is its class and fields, another enumeration's member its class and name. An object with
    ``model_dump()`` (pydantic) or ``__json__()`` (kombu) is its class and what that returns.

    Raises:
        InvalidParameter: A value inside is of another type, or contains itself.
    """
    parts: list[bytes] = []
    try:
        _encode(value, parts.append)
    except RecursionError:
        raise InvalidParameter("value", type(value).__name__, "it is nested too deeply, or contains itself") from None
    return b"".join(parts)


def key_bytes(key: Any) -> bytes:
    """The bytes of a routing key: of text its UTF-8, of anything else its canonical form behind 0xFF.

    No UTF-8 begins with 0xFF, so the two cannot meet; plain text hashes as it does in other systems.
    """
    if isinstance(key, str):
        return str.encode(key, "utf-8", "surrogatepass")
    return b"\xff" + canonical_bytes(key)


# Copying an empty state is nearly twice as fast as making one.
_empty_state = blake2b(digest_size=8).copy
_to_int = int.from_bytes


def blake2b64(data: bytes) -> int:
    """blake2b with 64 bits: in every Python, the default."""
    state = _empty_state()
    state.update(data)
    return _to_int(state.digest(), "big")


def hash64(data: bytes, *, function: HashFunction = blake2b64) -> int:
    """A whole number from 0 to 2**64 - 1.

    Args:
        data: Such as the result of `canonical_bytes`.
        function: `blake2b64`, or what `hash_function` returns, or your own.
    """
    return function(data)


def hash_function(name: str) -> HashFunction:
    """A 64-bit hash by name: ``"blake2b"``, or with the extra ``[xxhash]`` also ``"xxh3"`` and ``"xxh64"``."""
    if name == "blake2b":
        return blake2b64
    if name not in ("xxh3", "xxh64"):
        raise InvalidParameter("hash", name, "give blake2b, xxh3 or xxh64")
    try:
        import xxhash
    except ImportError:
        raise InvalidParameter("hash", name, "install celery-toolkit-core[xxhash], or give blake2b") from None
    function: HashFunction = xxhash.xxh3_64_intdigest if name == "xxh3" else xxhash.xxh64_intdigest
    return function


def bound_arguments(function: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a call by parameter name, defaults filled in: ``f(1)`` and ``f(x=1)`` give the same.

    Args:
        function: A function, or a Celery task; the ``self`` of a bound task is no argument.
        args: Positional arguments.
        kwargs: Arguments by name.

    Returns:
        Parameter name -> value, in the order of the signature; ``*rest`` as a tuple and ``**others`` as a dict.

    Raises:
        TypeError: The call itself would raise it: an argument is missing, doubled or unexpected.
    """
    run = function if inspect.isroutine(function) else getattr(function, "run", function)
    signature = _signature(run)
    try:
        bound = signature.bind(*(args or ()), **(kwargs or {}))
    except TypeError as error:
        name = getattr(function, "name", None) or getattr(function, "__name__", repr(function))
        raise TypeError(f"{name}() {error}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def call_digest(name: str, bound: Mapping[str, Any]) -> str:
    """32 hex digits (blake2b-128) for a task's name with its bound arguments.

    Args:
        name: The task's name.
        bound: What `bound_arguments` gave, or the part of it that matters.
    """
    return blake2b(canonical_bytes((name, bound)), digest_size=16).hexdigest()


def _encode(value: Any, put: Callable[[bytes], None]) -> None:
    kind = type(value)
    encode = _ENCODERS.get(kind)
    if encode is not None:
        encode(value, put)
        return
    if isinstance(value, Enum) and not isinstance(value, (int, str)):
        _put_object(kind, value.name, put)
        return
    if is_dataclass(value):
        _put_object(kind, {each.name: getattr(value, each.name) for each in fields(value)}, put)
        return
    # Subclasses: bool first is not needed, it cannot be subclassed.
    for base, encode in _ENCODERS.items():
        if isinstance(value, base):
            encode(value, put)
            return
    for method in ("model_dump", "__json__"):
        if not isinstance(value, type) and callable(dump := getattr(value, method, None)):
            _put_object(kind, dump(), put)
            return
    raise InvalidParameter(
        "value", f"{kind.__module__}.{kind.__qualname__}", "pass plain data, or say yourself what the key is"
    )


def _put_object(kind: type, content: Any, put: Callable[[bytes], None]) -> None:
    put(b"o")
    _put_str(f"{kind.__module__}.{kind.__qualname__}", put)
    _encode(content, put)


def _put_none(_: None, put: Callable[[bytes], None]) -> None:
    put(b"N")


def _put_bool(value: bool, put: Callable[[bytes], None]) -> None:
    put(b"T" if value else b"F")


def _put_int(value: int, put: Callable[[bytes], None]) -> None:
    # Hex: unlike decimal it has no limit of digits.
    put(b"i" + format(int(value), "x").encode() + b";")


def _put_float(value: float, put: Callable[[bytes], None]) -> None:
    if value != value:
        put(b"f\x7f\xf8\0\0\0\0\0\0")
    else:
        # Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
        put(b"f" + struct.pack(">d", value + 0.0))


def _put_str(value: str, put: Callable[[bytes], None]) -> None:
    data = str.encode(value, "utf-8", "surrogatepass")
    put(b"s%d:" % len(data))
    put(data)


def _put_bytes(value: bytes | bytearray, put: Callable[[bytes], None]) -> None:
    put(b"b%d:" % len(value))
    put(bytes(value))


def _put_list(value: Sequence[Any], put: Callable[[bytes], None]) -> None:
    put(b"l%d:" % len(value))
    for each in value:
        _encode(each, put)


def _put_set(value: set[Any] | frozenset[Any], put: Callable[[bytes], None]) -> None:
    put(b"e%d:" % len(value))
    for data in sorted(_encoded(each) for each in value):
        put(data)


def _put_dict(value: Mapping[Any, Any], put: Callable[[bytes], None]) -> None:
    put(b"d%d:" % len(value))
    # Two keys such as nan and another nan may share their bytes: then the value's bytes decide.
    for data in sorted(_encoded(key) + _encoded(each) for key, each in value.items()):
        put(data)


def _encoded(value: Any) -> bytes:
    parts: list[bytes] = []
    _encode(value, parts.append)
    return b"".join(parts)


def _as_text(tag: bytes, text: Callable[[Any], str]) -> Callable[[Any, Callable[[bytes], None]], None]:
    def encode(value: Any, put: Callable[[bytes], None]) -> None:
        put(tag)
        _put_str(text(value), put)

    return encode


# The order matters for subclasses: a datetime is a date.
_ENCODERS: dict[type, Callable[[Any, Callable[[bytes], None]], None]] = {
    str: _put_str,
    bool: _put_bool,
    int: _put_int,
    type(None): _put_none,
    float: _put_float,
    list: _put_list,
    tuple: _put_list,
    dict: _put_dict,
    bytes: _put_bytes,
    bytearray: _put_bytes,
    set: _put_set,
    frozenset: _put_set,
    datetime: _as_text(b"D", lambda value: value.isoformat()),
    date: _as_text(b"y", lambda value: value.isoformat()),
    time: _as_text(b"t", lambda value: value.isoformat()),
    timedelta: _as_text(b"p", lambda value: f"{value.days}/{value.seconds}/{value.microseconds}"),
    Decimal: _as_text(b"x", str),
    UUID: _as_text(b"u", lambda value: value.hex),
}

_ANYTHING = inspect.signature(lambda *args, **kwargs: None)
_signatures: WeakKeyDictionary[Any, dict[bool, inspect.Signature]] = WeakKeyDictionary()


def _signature(run: Any) -> inspect.Signature:
    # A bound method is a new object at every access: the function under it is the key.
    function = getattr(run, "__func__", run)
    bound = function is not run
    try:
        known = _signatures.setdefault(function, {})
    except TypeError:  # not weakly referable or not hashable: rare, so without a cache
        return _read_signature(run)
    if bound not in known:
        known[bound] = _read_signature(run)
    return known[bound]


def _read_signature(run: Any) -> inspect.Signature:
    try:
        return inspect.signature(run)
    except (TypeError, ValueError):  # some callables in C say nothing about themselves
        return _ANYTHING
