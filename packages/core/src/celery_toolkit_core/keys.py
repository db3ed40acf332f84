"""Redis keys: `KeySpace` is the only place that builds one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from .errors import InvalidParameter

#: Raised by one when the meaning of a stored value changes; version N reads N - 1.
SCHEMA = 1

_PLAIN = re.compile(r"[A-Za-z0-9_.:@/+-]{1,128}\Z")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys of one prefix and scope; all share one hash tag, so that one script may take any of them.

    A key reads ``{prefix:scope}:v1:kind`` or ``{prefix:scope}:v1:kind:digest``. User text only ever enters as a digest.

    Args:
        prefix: What the user calls our part of the server, such as ``"ranch"``; a colon at its end is dropped.
        scope: What lives together: an application, a limit, a ring. Plain text stays readable, other text is hashed.

    Raises:
        InvalidParameter: `prefix` is empty, too long, or holds braces, blanks or control characters.
    """

    prefix: str
    scope: str = "main"

    def __post_init__(self) -> None:
        prefix = self.prefix.rstrip(":") if isinstance(self.prefix, str) else ""
        if not _PLAIN.match(prefix):
            raise InvalidParameter("prefix", self.prefix, "give 1 to 128 letters, digits or any of _ . : @ / + -")
        object.__setattr__(self, "prefix", prefix)
        if not _PLAIN.match(self.scope):
            object.__setattr__(self, "scope", digest(self.scope))

    @property
    def tag(self) -> str:
        """The hash tag with its braces; also the beginning of every key."""
        return f"{{{self.prefix}:{self.scope}}}"

    def key(self, kind: str, *names: str) -> str:
        """The key of one structure, or of one of its members when `names` say which.

        Args:
            kind: Our own word for the structure: lower case, digits, dashes.
            *names: User text of any kind, hashed together without ambiguity.
        """
        base = _base(self.prefix, self.scope, kind)
        return f"{base}:{digest(*names)}" if names else base


@lru_cache(maxsize=256)
def _base(prefix: str, scope: str, kind: str) -> str:
    assert _KIND.match(kind), f"not a key kind: {kind!r}"
    return f"{{{prefix}:{scope}}}:v{SCHEMA}:{kind}"


# The structures of one name, such as the three keys of a limit, are asked for together and again.
@lru_cache(maxsize=1024)
def digest(*names: str) -> str:
    """blake2b-128 of the length-prefixed names: 32 hex digits, the same in every process and version."""
    state = blake2b(digest_size=16)
    for name in names:
        data = name.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()
