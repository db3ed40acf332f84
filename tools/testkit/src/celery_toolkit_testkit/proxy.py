"""A TCP proxy of ours in front of a real server: it delays, cuts, loses replies and counts round trips."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from .resp import Splitter, command_name, is_push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_CHUNK = 65536
# Below the range for outgoing connections, so that nobody takes the port while connections are refused.
_PORTS = range(10240, 32000)
_DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672}


@dataclass(slots=True)
class _Fault:
    kind: Literal["before", "after"]
    command: str | None
    remaining: int


class TcpProxy:
    """Stands in front of the server of `url`; use it with ``with``, or `start` and `close`.

    With a ``redis://`` URL it reads the protocol and can tell commands apart, anything else passes as bytes.

    Attributes:
        url: The given URL, through the proxy.
        latency: Seconds that each chunk waits, on its way there and on its way back; may be changed at any time.
        commands: How often each Redis command was sent through, by upper-case name (``"EVALSHA"``).
        round_trips: How often a client had to wait for an answer: a pipeline is one.
        connections: How many were opened.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or _DEFAULT_PORTS[parts.scheme])
        self.reads_redis = parts.scheme == "redis"
        self.latency = 0.0
        self.commands: Counter[str] = Counter()
        self.round_trips = 0
        self.connections = 0
        self._credentials, at, _ = parts.netloc.rpartition("@")
        self._parts, self._at = parts, at
        self._port = 0
        self._fault: _Fault | None = None
        self._bytes_left: int | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="tcp-proxy", daemon=True)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """The URL to give to clients."""
        return self._parts._replace(netloc=f"{self._credentials}{self._at}127.0.0.1:{self._port}").geturl()

    def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Cut everything and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> TcpProxy:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def cut(self) -> int:
        """Reset all connections now; new ones are welcome. Returns how many there were."""

        def cut_all() -> int:
            links = list(self._links)
            for link in links:
                link.reset()
            return len(links)

        return self._in_loop(cut_all)

    def lose_reply(self, command: str | None = None, *, nth: int = 1) -> None:
        """Let a command reach the server and be executed, then cut its connection instead of passing the reply.

        Args:
            command: Only count commands of this name, as the client sends it (redis-py turns ``incr`` into ``INCRBY``);
                by default any. See `fault_pending`.
            nth: Which one from now on.
        """
        self._arm("after", command, nth)

    def lose_command(self, command: str | None = None, *, nth: int = 1) -> None:
        """Cut the connection instead of passing the `nth` (such) command from now on; the server never sees it."""
        self._arm("before", command, nth)

    def cut_after_bytes(self, count: int) -> None:
        """Pass `count` more bytes of requests, then cut the connection that sends the next one."""

        def arm() -> None:
            self._bytes_left = count

        self._in_loop(arm)

    @property
    def fault_pending(self) -> bool:
        """Whether an ordered fault has not happened yet."""
        return self._fault is not None or self._bytes_left is not None

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections for the length of the block; those that exist live on (see `cut`)."""
        self._in_loop(self._close_listener)
        try:
            yield
        finally:
            self._in_loop(self._listen)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Hold back every byte for the length of the block, as a network that is gone does, then deliver."""
        self._in_loop(self._flowing.clear)
        try:
            yield
        finally:
            self._in_loop(self._flowing.set)

    # What follows runs in the proxy's thread.

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self._listen()
        self._ready.set()
        await self._stop.wait()
        self._close_listener()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            port = self._port or _PORTS[secrets.randbelow(len(_PORTS))]
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                if self._port:
                    raise
                continue
            break
        listener.listen(128)
        listener.setblocking(False)
        self._listener, self._port = listener, port
        self._loop.add_reader(listener, self._accept)

    def _close_listener(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        # A callback and not a task: one that is cancelled would lose the connection it has just accepted.
        with suppress(BlockingIOError, ConnectionError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            # asyncio does it for the sockets that it makes itself. Without, the replies to a pipeline wait 40 ms for
            # one another: this end holds back the second until the client has confirmed the first, which waits too.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            task = self._loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # The stream owns the socket, but a task that is cancelled before its first step has made no stream.
            task.add_done_callback(partial(_close, client))

    async def _serve(self, client: socket.socket) -> None:
        client_reader, client_writer = await asyncio.open_connection(sock=client, limit=_CHUNK)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target, limit=_CHUNK)
        except (OSError, asyncio.CancelledError):
            _reset(client_writer)
            return
        link = _Link(self, client_writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                _pump(client_reader, link.request, link.requests),
                _pump(server_reader, link.reply, link.replies),
                self._deliver(link.requests, server_writer),
                self._deliver(link.replies, client_writer),
            )
        finally:
            link.reset()
            self._links.discard(link)

    async def _deliver(self, queue: _Queue, writer: asyncio.StreamWriter) -> None:
        while True:
            arrived, data = await queue.get()
            while (left := arrived + self.latency - self._loop.time()) > 0:
                await asyncio.sleep(left)
            await self._flowing.wait()
            if data is None:
                writer.close()
                return
            writer.write(data)
            with suppress(OSError):  # that side is cut; its end will come through the queue
                await writer.drain()

    def _hits(self, command: str) -> _Fault | None:
        fault = self._fault
        if fault is None or fault.command not in (None, command):
            return None
        fault.remaining -= 1
        if fault.remaining:
            return None
        self._fault = None
        return fault

    def _arm(self, kind: Literal["before", "after"], command: str | None, nth: int) -> None:
        if not self.reads_redis:
            raise ValueError("commands can be told apart on redis:// only")

        def arm() -> None:
            self._fault = _Fault(kind, command and command.upper(), nth)

        self._in_loop(arm)

    def _in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()


_Queue = asyncio.Queue[tuple[float, "bytes | None"]]


class _Link:
    """One client's connection and ours to the server."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.requests: _Queue = asyncio.Queue()
        self.replies: _Queue = asyncio.Queue()
        self._request_splitter, self._reply_splitter = Splitter(), Splitter()
        self._sent = self._answered = 0
        self._waiting = False  # for protocols we do not read: the last bytes came from the client
        self._lose: int | None = None  # the number of the reply to lose

    def request(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._lose is not None:
            return
        if not self.proxy.reads_redis:
            self.proxy.round_trips += not self._waiting
            self._waiting = True
            self._forward(data)
            return
        for message in self._request_splitter.feed(data):
            name = command_name(message)
            self.proxy.round_trips += self._sent == self._answered
            self.proxy.commands[name] += 1
            self._sent += 1
            fault = self.proxy._hits(name)
            if fault is not None and fault.kind == "before":
                self._end_requests()
                return
            if not self._forward(message):
                return
            if fault is not None:
                self._lose = self._sent
                return

    def reply(self, data: bytes) -> None:
        """Bytes from the server."""
        self._waiting = False
        if not self.proxy.reads_redis:
            self._put(self.replies, data)
            return
        for message in self._reply_splitter.feed(data):
            self._answered += not is_push(message)
            if self._answered == self._lose:
                self.reset()
                return
            self._put(self.replies, message)

    def reset(self) -> None:
        """Cut both sides."""
        _reset(self.client)
        _reset(self.server)

    def _forward(self, data: bytes) -> bool:
        left = self.proxy._bytes_left
        if left is None or len(data) <= left:
            if left is not None:
                self.proxy._bytes_left = left - len(data)
            self._put(self.requests, data)
            return True
        self.proxy._bytes_left = None
        self._put(self.requests, data[:left])
        self._end_requests()
        return False

    def _end_requests(self) -> None:
        # What was passed before is delivered: only the client is cut, the server sees an orderly end.
        self._lose = -1
        self._put(self.requests, None)
        _reset(self.client)

    def _put(self, queue: _Queue, data: bytes | None) -> None:
        queue.put_nowait((self.proxy._loop.time(), data))


async def _pump(reader: asyncio.StreamReader, take: Callable[[bytes], None], queue: _Queue) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            take(data)
    queue.put_nowait((asyncio.get_running_loop().time(), None))


def _close(client: socket.socket, _task: object) -> None:
    client.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Linger 0: the peer sees "connection reset" and not an orderly end.
    plain: Any = writer.get_extra_info("socket")
    if plain is not None and plain.fileno() >= 0:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
