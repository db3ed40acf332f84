"""Dead letters: messages that will not be tried again by themselves, kept for people to read, replay or purge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from . import parameters
from .scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from .keys import KeySpace

_DETAIL = "detail:"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that died, and why.

    Attributes:
        id: What the message is called, as a rule the task id; a list holds it once.
        task: The task's name.
        reason: One short word or sentence to group by.
        message: The message's bytes, untouched, to be published again.
        details: Readable text for people: arguments, headers, exception, traceback, retries, times, queue.
        at: Redis time in seconds when it was put; set by the list.
        taken_by: The token that replays it now, or empty; set by the list.
        cursor: Its place in the list, to go on from; set by the list.
    """

    id: str
    task: str
    reason: str
    message: bytes = b""
    details: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0
    taken_by: str = ""
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """Letters taken for replay: oldest first, held by `token` until the lease ends."""

    token: str
    letters: tuple[DeadLetter, ...]


class DeadLetters:
    """A capped list of dead letters, oldest first. Every operation is one round trip.

    A letter is taken for replay under a lease, by one at a time, and then confirmed (it is gone) or given back. A
    letter put again, because its message died again, replaces the old one; who had taken the old one can no longer
    confirm it. Asked again with the same token within 10 s, an operation gives the same answer.

    Args:
        client: A Redis client that answers bytes (`connection.connect`).
        keys: Where the list lives.
        name: Which list.
        most: How many letters it holds; the oldest go first.
        keep: Seconds that a letter is kept, 30 days by default.
    """

    def __init__(
        self,
        client: Any,
        keys: KeySpace,
        name: str = "main",
        *,
        most: int = 10_000,
        keep: float | timedelta = 30 * 86400.0,
    ) -> None:
        self._keys = keys
        self._name = parameters.text("name", name)
        self._most = parameters.count("most", most)
        self._keep_ms = parameters.milliseconds("keep", keep)
        self._scripts = Scripts(client, "celery_toolkit_core")

    def put(self, letter: DeadLetter, *, token: str | None = None) -> int:
        """Keep a letter; `at`, `taken_by` and `cursor` are not read.

        Args:
            letter: The letter.
            token: One attempt to put; a fresh one by default.

        Returns:
            How many old letters went to make room.
        """
        token = uuid4().hex if token is None else parameters.text("token", token)
        name = parameters.text("id", letter.id)
        fields: list[Any] = ["task", _encode(letter.task), "reason", _encode(letter.reason), "message", letter.message]
        for key, value in letter.details.items():
            fields += [_encode(_DETAIL + key), _encode(value)]
        receipt = self._keys.key("dead-receipt", self._name, token, name)
        args = [name, self._most, self._keep_ms, *fields]
        return int(self._scripts.run("deadletters_put", [receipt, *self._list_keys], args))

    def page(self, after: str = "", *, count: int = 100) -> list[DeadLetter]:
        """Up to `count` letters, oldest first, behind the one whose `cursor` is `after`."""
        args = [f"({after}" if after else "-", parameters.count("count", count)]
        return _letters(self._scripts.run("deadletters_page", self._list_keys, args))

    def __iter__(self) -> Iterator[DeadLetter]:
        """All letters, oldest first, read in pages."""
        page = self.page()
        while page:
            yield from page
            page = self.page(page[-1].cursor)

    def __len__(self) -> int:
        """How many letters there are."""
        return int(self._scripts.run("deadletters_count", self._list_keys))

    def take(self, ids: Sequence[str], *, lease: float | timedelta = 30.0, token: str | None = None) -> Replay:
        """Take those of the letters that are there and free, to be confirmed or given back within `lease` seconds."""
        for name in ids:
            parameters.text("id", name)
        return self._take(0, ids, lease, token)

    def take_oldest(self, count: int, *, lease: float | timedelta = 30.0, token: str | None = None) -> Replay:
        """Take the `count` (at most 1000) oldest free letters; otherwise like `take`."""
        return self._take(parameters.count("count", count, most=1000), (), lease, token)

    def confirm(self, token: str, ids: Sequence[str]) -> list[bool]:
        """Let replayed letters go for good; False for each that `token` does not hold any more."""
        return self._settle(token, "confirmed", ids)

    def give_back(self, token: str, ids: Sequence[str]) -> list[bool]:
        """Let taken letters be taken by others; False for each that `token` does not hold any more."""
        return self._settle(token, "back", ids)

    def purge(self, ids: Sequence[str]) -> int:
        """Remove letters for good, taken or not; how many there were (a replay counts only what is left)."""
        for name in ids:
            parameters.text("id", name)
        return int(self._scripts.run("deadletters_purge", self._list_keys, [-1, *ids]))

    def purge_older(self, age: float | timedelta = 0.0) -> int:
        """Remove all letters older than `age` seconds, a thousand in each round trip; how many there were."""
        age_ms = parameters.milliseconds("age", age, zero=True)
        gone = total = int(self._scripts.run("deadletters_purge", self._list_keys, [age_ms]))
        while gone == 1000:
            gone = int(self._scripts.run("deadletters_purge", self._list_keys, [age_ms]))
            total += gone
        return total

    @property
    def _list_keys(self) -> list[str]:
        return [self._keys.key(f"dead-{part}", self._name) for part in ("letters", "index", "taken")]

    def _take(self, count: int, ids: Sequence[str], lease: float | timedelta, token: str | None) -> Replay:
        token = uuid4().hex if token is None else parameters.text("token", token)
        args = [token, parameters.milliseconds("lease", lease), count, *ids]
        return Replay(token, tuple(_letters(self._scripts.run("deadletters_take", self._batch_keys(token), args))))

    def _settle(self, token: str, word: str, ids: Sequence[str]) -> list[bool]:
        for name in ids:
            parameters.text("id", name)
        keys = self._batch_keys(parameters.text("token", token))
        return [bool(answer) for answer in self._scripts.run("deadletters_settle", keys, [token, word, *ids])]

    def _batch_keys(self, token: str) -> list[str]:
        return [self._keys.key("dead-batch", self._name, token), *self._list_keys]


def _encode(text: str) -> bytes:
    # A traceback may hold lone surrogates; a letter must not be lost for that.
    return text.encode("utf-8", "backslashreplace")


def _letters(flat: Sequence[Any]) -> list[DeadLetter]:
    return [_letter(*flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _letter(cursor: bytes, taken_by: bytes, fields: Sequence[bytes]) -> DeadLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    details = {
        key.decode("utf-8", "replace")[len(_DETAIL) :]: value.decode("utf-8", "replace")
        for key, value in values.items()
        if key.startswith(_DETAIL.encode())
    }

    def text(name: bytes) -> str:
        return values.get(name, b"").decode("utf-8", "replace")

    return DeadLetter(
        id=text(b"id"),
        task=text(b"task"),
        reason=text(b"reason"),
        message=values.get(b"message", b""),
        details=details,
        at=int(cursor.split(b"-")[0]) / 1000,
        taken_by=taken_by.decode("utf-8", "replace"),
        cursor=cursor.decode(),
    )
