"""The splitter finds message ends wherever the stream is torn."""

from __future__ import annotations

import pytest

from celery_toolkit_testkit.resp import Splitter, command_name, is_push

MESSAGES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\na\r\nb\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
    b"%1\r\n+key\r\n*1\r\n_\r\n",
    b"~1\r\n,1.5\r\n",
    b"|1\r\n+ttl\r\n:9\r\n$1\r\nx\r\n",
    b"=5\r\ntxt:a\r\n",
    b">2\r\n+invalidate\r\n_\r\n",
]


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_messages_come_out_whole_however_they_arrive(step):
    stream, splitter = b"".join(MESSAGES), Splitter()
    found = [
        message for start in range(0, len(stream), step) for message in splitter.feed(stream[start : start + step])
    ]
    assert found == MESSAGES


def test_commands_are_named():
    assert command_name(b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n") == "GET"
    assert command_name(b"ping\r\n") == "PING"


def test_only_pushes_are_pushes():
    assert [message for message in MESSAGES if is_push(message)] == MESSAGES[-1:]
