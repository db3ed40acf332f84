"""``celery showcase workers | flower``: the processes of one pool, and a page to look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Command, pass_app

if TYPE_CHECKING:
    from celery import Celery

    from ..tasks import Pool

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(cls=Command, context_settings=_PASS_ON)
@click.argument("pool", type=click.Choice(["heavy", "light"]))
@click.option("--name", "-n", help="Node name; by default POOL@HOST.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@pass_app
def workers(app: Celery, pool: Pool, name: str | None, options: tuple[str, ...]) -> None:
    """Start a worker for one pool: its queue, its settings, a node name of its own.

    Other OPTIONS are those of celery worker, such as -c 4 -l INFO.
    """
    from ..pools import run_worker

    run_worker(app, pool, name, options)


@click.command(cls=Command, context_settings=_PASS_ON)
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="0.0.0.0 for all; then set a password.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@pass_app
def flower(app: Celery, port: int, address: str, options: tuple[str, ...]) -> None:
    """Start Flower, a page about workers and tasks; other OPTIONS are Flower's."""
    from ..pools import run_flower

    run_flower(app, port, address, options)
