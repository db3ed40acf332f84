"""``celery showcase queues | purge | status``: what waits, and for whom."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from celery_toolkit_core.celery.cli import Command, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery


@click.command(cls=Command)
@json_option
@pass_app
def queues(app: Celery, as_json: bool) -> None:
    """Say for each queue how many messages wait, over all priorities, and how many workers have in hand."""
    from ..depths import Depths
    from ..errors import NoManagement
    from ..management import unacknowledged

    depths = Depths(app).read()
    rows = [{"queue": each.queue, "waiting": each.waiting, "unacknowledged": each.unacknowledged} for each in depths]
    if any(each.unacknowledged is None for each in depths):
        # Over AMQP, RabbitMQ tells what waits and nothing else.
        try:
            told = unacknowledged(app)
        except NoManagement as error:
            click.echo(f"unacknowledged is not known: {error}", err=True)
        else:
            rows = [{**row, "unacknowledged": told.get(str(row["queue"]))} for row in rows]
    show(rows, as_json=as_json)


@click.command(cls=Command)
@click.argument("names", metavar="[QUEUE]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_app
def purge(app: Celery, names: tuple[str, ...], yes: bool) -> None:
    """Remove all messages that wait in these queues, by default in all of the application, for good.

    What a worker has in hand stays: it is not in the queue any more.
    """
    known = app.amqp.queues
    for name in names:
        if name not in known:
            raise click.ClickException(f"there is no queue {name}; the application has {', '.join(sorted(known))}")
    chosen = list(dict.fromkeys(names)) or sorted(known)
    if not yes:
        if not sys.stdin.isatty():
            raise click.ClickException("there is no terminal to ask for your consent on; give --yes")
        click.confirm(f"Remove all messages of {', '.join(chosen)}?", abort=True)
    gone = 0
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        for name in chosen:
            queue = known[name](connection.default_channel)
            queue.declare()
            gone += queue.purge() or 0
    click.echo(f"{gone} removed")


@click.command(cls=Command)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds for workers.")
@json_option
@pass_app
def status(app: Celery, timeout: float, as_json: bool) -> None:
    """Say what the broker is, which workers answer, and how many dead letters there are."""
    from ..overview import broker_of, workers_of

    found: dict[str, Any] = {"broker": broker_of(app)}
    workers = workers_of(app, timeout)
    found["dead_letters"] = _number_of_letters(app)
    if as_json:
        show({**found, "workers": workers}, as_json=True)
        return
    show(found, as_json=False)
    click.echo()
    show([{**worker, "queues": ", ".join(worker["queues"])} for worker in workers] or [_NOBODY], as_json=False)


_NOBODY = {"worker": "no worker answers"}


def _number_of_letters(app: Celery) -> int | str:
    from celery_toolkit_core.connection import DRIVER_ERRORS
    from celery_toolkit_core.errors import ToolkitError

    from ..dead_letters import dead_letters_of

    try:
        return len(dead_letters_of(app))
    except (ToolkitError, *DRIVER_ERRORS) as error:
        return f"not known: {error}"
