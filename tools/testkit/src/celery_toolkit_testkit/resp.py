"""The least of the Redis protocol: where one message of a byte stream ends (RESP2 and RESP3)."""

from __future__ import annotations

_BULK = b"$=!"
# Elements that follow per counted element.
_AGGREGATES = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}
_ATTRIBUTE = ord("|")


class Splitter:
    """Cuts a stream into whole messages and keeps the rest for the next call."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, each with its exact bytes."""
        data = self._rest + data
        messages, start = [], 0
        while (end := _end(data, start)) is not None:
            messages.append(data[start:end])
            start = end
        self._rest = data[start:]
        return messages


def command_name(message: bytes) -> str:
    """The upper-case name of the command in a request."""
    if message.startswith(b"*"):
        return message.split(b"\r\n", 3)[2].decode(errors="replace").upper()
    return message.split(None, 1)[0].decode(errors="replace").upper()  # an inline command


def is_push(message: bytes) -> bool:
    """Whether a message of the server answers no command."""
    return message.startswith(b">")


def _end(data: bytes, start: int) -> int | None:
    """The offset behind the message that begins at `start`, or None while it is incomplete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, end = data[start], line_end + 2
    if kind in _BULK:
        length = int(data[start + 1 : line_end])
        end += length + 2 if length >= 0 else 0
        return end if end <= len(data) else None
    elements = 0
    if kind in _AGGREGATES:
        elements = int(data[start + 1 : line_end]) * _AGGREGATES[kind]
    elif kind == _ATTRIBUTE:  # precedes the message that it describes
        elements = int(data[start + 1 : line_end]) * 2 + 1
    for _ in range(elements):
        following = _end(data, end)
        if following is None:
            return None
        end = following
    return end
