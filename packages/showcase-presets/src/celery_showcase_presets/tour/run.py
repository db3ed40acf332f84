"""The tour from its first line to its page."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import redis

from celery_toolkit_core.connection import connect
from celery_toolkit_core.local_server import discover

from ..errors import EffectMissing, PieceMissing
from .place import Place
from .plan import Plan
from .rabbit import virtual_host
from .report import Told, write
from .trace import Trace

if TYPE_CHECKING:
    from .chapters import Chapter
    from .rabbit import Management
    from .screen import Plain

_PIECES = ("celery_heimdall", "celery_ranch", "celery_chain_router", "prometheus_client")


def run(screen: Plain, output: Path, plan: Plan | None = None, pause: Callable[[], None] = lambda: None) -> Path:
    """Play all chapters and write the page; nothing else stays behind.

    Args:
        screen: Where the tour is shown.
        output: The folder of the page.
        plan: What the visitor has chosen.
        pause: Called before each chapter.

    Returns:
        The page's path.

    Raises:
        PieceMissing: A leaf is not installed.
        InvalidParameter: The plan names no chapter.
        RedisUnavailable: ``REDIS_URL`` is set and nothing answers there.
        NoManagement: The plan names a RabbitMQ whose management API does not answer.
        EffectMissing: A promise was broken; the page is written all the same.
    """
    missing = [piece for piece in _PIECES if find_spec(piece) is None]
    if missing:
        raise PieceMissing(
            f"the tour needs {', '.join(missing)}: install celery-toolkit-showcase-presets[all]", packages=missing
        )
    # Not before the pieces are known to be there: the chapters import them.
    from .chapters import chosen

    plan = plan or Plan()
    chapters = chosen(plan.only)
    begin = time.monotonic()
    told: list[Told] = []
    with ExitStack() as stack:
        interrupted = stack.enter_context(_calm_end())
        server = stack.enter_context(discover(default_port=True))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="showcase-tour-"))
        place, management = Place(server.url, Path(folder)), None
        if plan.rabbitmq:
            broker, management = stack.enter_context(virtual_host(plan.rabbitmq, plan.management, place.name))
            place = replace(place, rabbitmq=broker)
        place.enter()
        stack.callback(place.remove_keys)
        described = _describe(server.url)
        screen.say(f"Redis: {described}, {server.origin}")
        if management:
            screen.say(f"RabbitMQ carries the messages, in a virtual host of its own; its page: {management.url}")
            described += " and RabbitMQ"
        broken = _play(chapters, screen, place, told, stack, pause, plan, interrupted, management)
        # The workers first, then the keys, the folder and the server.
    page = write(output, told, described, time.monotonic() - begin)
    _summary(screen, told, page, time.monotonic() - begin)
    if broken is not None:
        raise broken
    return page


def _play(
    chapters: Sequence[tuple[int, Chapter]],
    screen: Plain,
    place: Place,
    told: list[Told],
    stack: ExitStack,
    pause: Callable[[], None],
    plan: Plan,
    interrupted: Event,
    management: Management | None,
) -> EffectMissing | None:
    # Only here: the application reads its place from the environment.
    from .app import app
    from .stage import Stage
    from .workers import Crew

    app.set_current()
    app.loader.import_default_modules()
    stack.callback(app.close)
    crew = stack.enter_context(Crew(place))
    sent: dict[str, float] = {}
    for number, chapter in chapters:
        pause()
        screen.chapter(number, chapter.title, chapter.promise)
        stage = Stage(app, crew, Trace(place.trace_path), screen, plan, interrupted, sent=sent, management=management)
        begin = time.monotonic()
        pictures: list[str] = []
        broken: EffectMissing | None = None
        try:
            pictures = chapter.play(stage)
        except EffectMissing as error:
            broken = error
        seconds = time.monotonic() - begin
        told.append(
            Told(
                number=number,
                title=chapter.title,
                promise=chapter.promise,
                seconds=seconds,
                kept=stage.kept,
                pictures=pictures,
                highlights=stage.highlights,
                broken=str(broken) if broken else None,
            )
        )
        if broken is not None:
            return broken
    return None


def _summary(screen: Plain, told: list[Told], page: Path, seconds: float) -> None:
    screen.say("")
    for chapter in told:
        screen.say(f"{chapter.seconds:5.1f} s  {chapter.number}. {chapter.title}")
    screen.say(f"{seconds:5.1f} s  in all; the pictures: {page}")


def _describe(url: str) -> str:
    client: redis.Redis = connect(url)
    with client:
        info: dict[str, Any] = client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info['redis_version']}"


@contextmanager
def _calm_end() -> Iterator[Event]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; while it cleans up, none of them disturbs it.

    Yields:
        Set once it has come to that: an exception that meets Python inside a finalizer is lost there.
    """
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    interrupted = Event()

    def interrupt(number: int, _: object) -> None:
        interrupted.set()
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
