"""``celery showcase tour``: see each piece do its job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from celery_toolkit_core.celery.cli import Command


@click.command(cls=Command)
@click.option("--no-input", is_flag=True, help="Do not wait for a key between chapters.")
@click.option("--loop", type=int, default=12, show_default=True, help="How many chains the bulk chapter sends.")
@click.option(
    "--delay", type=float, default=0.2, show_default=True, help="Seconds that each of their heavy tasks takes."
)
@click.option("--only", metavar="CHAPTER", multiple=True, help="Only this chapter, by name or number; may be repeated.")
@click.option(
    "--rabbitmq",
    metavar="URL",
    envvar="SHOWCASE_TOUR_RABBITMQ",
    help="Let this RabbitMQ carry the messages, in a virtual host of its own. Redis keeps results and the rest.",
)
@click.option("--management", metavar="URL", help="Its management API; by default port 15672 of the same host.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Folder of the page with the pictures.",
)
def tour(no_input: bool, loop: int, delay: float, only: tuple[str, ...], output: Path, **broker: Any) -> None:
    """See each piece do its job, on real workers and a real server.

    Uses REDIS_URL, else a server on the default port under a prefix of its own, else a private one. Ends with exit code
    1 when an effect that it promised did not happen.
    """
    from ..tour.plan import Plan
    from ..tour.run import run
    from ..tour.screen import screen

    interactive = not no_input and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        run(screen(), output, Plan(loop, delay, only, **broker), _wait_for_key if interactive else _go_on)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _wait_for_key() -> None:
    click.echo("\n   press any key to go on", nl=False)
    # Not click.pause(), which takes Ctrl-C for a key.
    click.getchar()
    click.echo()


def _go_on() -> None:
    pass
