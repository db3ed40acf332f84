"""One bytes form per value and one 64-bit hash per bytes: equal in every process, machine and Python version."""

from __future__ import annotations

import inspect
import struct
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
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
    try:
        return _encode(value)
    except RecursionError:
        raise _too_deep(value) from None


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
    """A 64-bit hash by name: ``"blake2b"``, or with the extra ``[xxhash]`` also ``"xxh3"`` and ``"xxh64"``.

    Raises:
        InvalidParameter: There is no such hash, or its extra is not installed.
    """
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
    signature, plain = _signature(run)
    args, kwargs = args or (), kwargs or {}
    if plain is not None and len(args) <= len(plain):
        # What `inspect` does, for the usual signature and a call that fits; it takes a fifth of the time.
        named = dict(zip(plain, args, strict=False))
        if named.keys().isdisjoint(kwargs):
            found = {**plain, **named, **kwargs}
            if len(found) == len(plain) and not any(each is _MISSING for each in found.values()):
                return found
    try:
        bound = signature.bind(*args, **kwargs)
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
    try:
        # `canonical_bytes((name, bound))`; a task and its parameters have the same names each time.
        parts = [_of_name(key) + _encode(value) for key, value in bound.items()]
    except RecursionError:
        raise _too_deep(bound) from None
    data = b"l2:%bd%d:%b" % (_of_name(name), len(parts), b"".join(sorted(parts)))
    return blake2b(data, digest_size=16).hexdigest()


def _too_deep(value: Any) -> InvalidParameter:
    return InvalidParameter("value", type(value).__name__, "it is nested too deeply, or contains itself")


def _encode(value: Any) -> bytes:
    kind = type(value)
    encode = _ENCODERS.get(kind)
    if encode is not None:
        return encode(value)
    if isinstance(value, Enum) and not isinstance(value, (int, str)):
        return _of_object(kind, value.name)
    if is_dataclass(value):
        return _of_object(kind, {each.name: getattr(value, each.name) for each in fields(value)})
    # Subclasses: bool first is not needed, it cannot be subclassed.
    for base, encode in _ENCODERS.items():
        if isinstance(value, base):
            return encode(value)
    for method in ("model_dump", "__json__"):
        if not isinstance(value, type) and callable(dump := getattr(value, method, None)):
            return _of_object(kind, dump())
    raise InvalidParameter(
        "value", f"{kind.__module__}.{kind.__qualname__}", "pass plain data, or say yourself what the key is"
    )


def _of_object(kind: type, content: Any) -> bytes:
    return b"o" + _of_str(f"{kind.__module__}.{kind.__qualname__}") + _encode(content)


def _of_none(_: None) -> bytes:
    return b"N"


def _of_bool(value: bool) -> bytes:
    return b"T" if value else b"F"


def _of_int(value: int) -> bytes:
    # Hex: unlike decimal it has no limit of digits.
    return b"i" + format(int(value), "x").encode() + b";"


def _of_float(value: float) -> bytes:
    if value != value:
        return b"f\x7f\xf8\0\0\0\0\0\0"
    # Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
    return b"f" + struct.pack(">d", value + 0.0)


def _of_str(value: str) -> bytes:
    data = str.encode(value, "utf-8", "surrogatepass")
    return b"s%d:%b" % (len(data), data)


_of_name = lru_cache(maxsize=1024)(_of_str)


def _of_bytes(value: bytes | bytearray) -> bytes:
    return b"b%d:" % len(value) + bytes(value)


def _of_list(value: Sequence[Any]) -> bytes:
    return b"l%d:" % len(value) + b"".join([_encode(each) for each in value])


def _of_set(value: set[Any] | frozenset[Any]) -> bytes:
    return b"e%d:" % len(value) + b"".join(sorted([_encode(each) for each in value]))


def _of_dict(value: Mapping[Any, Any]) -> bytes:
    # Two keys such as nan and another nan may share their bytes: then the value's bytes decide.
    return b"d%d:" % len(value) + b"".join(sorted([_encode(key) + _encode(each) for key, each in value.items()]))


def _as_text(tag: bytes, text: Callable[[Any], str]) -> Callable[[Any], bytes]:
    return lambda value: tag + _of_str(text(value))


# The order matters for subclasses: a datetime is a date.
_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _of_str,
    bool: _of_bool,
    int: _of_int,
    type(None): _of_none,
    float: _of_float,
    list: _of_list,
    tuple: _of_list,
    dict: _of_dict,
    bytes: _of_bytes,
    bytearray: _of_bytes,
    set: _of_set,
    frozenset: _of_set,
    datetime: _as_text(b"D", lambda value: value.isoformat()),
    date: _as_text(b"y", lambda value: value.isoformat()),
    time: _as_text(b"t", lambda value: value.isoformat()),
    timedelta: _as_text(b"p", lambda value: f"{value.days}/{value.seconds}/{value.microseconds}"),
    Decimal: _as_text(b"x", str),
    UUID: _as_text(b"u", lambda value: value.hex),
}

_ANYTHING = inspect.signature(lambda *args, **kwargs: None)
_MISSING = object()
# A signature, and when it has no more than plain parameters, their names with the defaults.
_Signature = tuple[inspect.Signature, "dict[str, Any] | None"]
_signatures: WeakKeyDictionary[Any, dict[bool, _Signature]] = WeakKeyDictionary()


def _signature(run: Any) -> _Signature:
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


def _read_signature(run: Any) -> _Signature:
    try:
        signature = inspect.signature(run)
    except (TypeError, ValueError):  # some callables in C say nothing about themselves
        return _ANYTHING, None
    plain = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            return signature, None
        plain[name] = _MISSING if parameter.default is parameter.empty else parameter.default
    return signature, plain
