"""Lua scripts: read from package data once, with their includes, and bound to a client."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from .connection import DRIVER_ERRORS, explain
from .shortcut import Shortcut, Words, flat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.commands.core import Script

_INCLUDE = re.compile(r"^--@include ([a-z_]+):([a-z_]+)[ \t]*$", re.MULTILINE)


class Scripts:
    """The Lua scripts of one package, bound to one client.

    A script is ``lua/<name>.lua`` beside the package's modules. A line ``--@include package:name`` stands for that
    other file of Lua functions, taken in once.

    Args:
        client: A `redis.Redis` (or `RedisCluster`) that answers bytes.
        package: The import name of the package that owns the scripts.
    """

    def __init__(self, client: Any, package: str) -> None:
        self.client = client
        self.package = package
        self._shortcut = Shortcut(client)
        self._known: dict[str, tuple[str, str]] = {}
        self._bound: dict[str, Script] = {}

    def run(
        self,
        name: str,
        keys: Sequence[str | Words],
        args: Sequence[Any] = (),
        *,
        client: Any = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Run one script: one round trip, or three the first time a server meets it.

        Args:
            name: The script's file name without ``.lua``.
            keys: Every key that the script touches; all of one hash tag. What is the same each time comes as `Words`.
            args: Its arguments: str, bytes, int or float; `Words` likewise.
            client: A pipeline to queue the call in instead; the answer is then the pipeline's.
            meanwhile: What the caller may do while the answer is on its way; called once or not at all.

        Raises:
            RedisUnavailable: The server is away, or did not answer within the client's timeout.
            RedisFull: The server is at ``maxmemory`` and the script had something to add.
        """
        known = self._known.get(name)
        if known is None:
            text = source(self.package, name)
            # The name by which EVALSHA knows a script; nothing is kept secret by it.
            known = self._known[name] = (sha1(text.encode(), usedforsecurity=False).hexdigest(), text)
        if client is not None:
            return self._script(name, known[1])(keys=flat(keys), args=flat(args), client=client)
        try:
            return self._run(*known, keys, args, meanwhile)
        except DRIVER_ERRORS as error:
            raise explain(error, self.client) from error

    def tell(self, name: str, keys: Sequence[str | Words], args: Sequence[Any], heard: Callable[[Any], None]) -> bool:
        """Send one script to be run now, and read its answer later: with that to the next question, or in `hear`.

        Args:
            name: As in `run`, like the next two. It may have run already when it is sent again, so it is one that then
                changes nothing.
            keys: See there.
            args: See there.
            heard: Gets the answer, or redis-py's exception in its place, in any thread: then `run` it.

        Returns:
            Whether it was sent; if not, `run` it.
        """
        known = self._known.get(name)
        return known is not None and self._shortcut.tell(known[0], keys, args, heard)

    def hear(self) -> None:
        """Read the answers that `tell` has left to be read."""
        self._shortcut.hear()

    def _run(
        self,
        sha: str,
        text: str,
        keys: Sequence[str | Words],
        args: Sequence[Any],
        meanwhile: Callable[[], None] | None,
    ) -> Any:
        try:
            return self._shortcut.evalsha(sha, keys, args, meanwhile=meanwhile)
        except NoScriptError:
            pass
        self.client.script_load(text)
        keys, args = flat(keys), flat(args)
        try:
            return self.client.evalsha(sha, len(keys), *keys, *args)
        except NoScriptError:
            # Flushed once more between the two: send the text itself.
            return self.client.eval(text, len(keys), *keys, *args)

    def _script(self, name: str, text: str) -> Script:
        # Redis-py's own kind: with it a pipeline sees by itself to the loading.
        script = self._bound.get(name)
        if script is None:
            script = self._bound[name] = self.client.register_script(text)
        return script


@cache
def source(package: str, name: str) -> str:
    """The text of one script with its includes; each include stands once, at its first mention."""
    return _expand(package, name, set())


def _expand(package: str, name: str, seen: set[tuple[str, str]]) -> str:
    seen.add((package, name))
    text = (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")

    def include(match: re.Match[str]) -> str:
        wanted = (match[1], match[2])
        return "" if wanted in seen else _expand(*wanted, seen)

    return _INCLUDE.sub(include, text)
