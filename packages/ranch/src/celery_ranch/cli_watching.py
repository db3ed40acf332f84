"""The commands of ``celery ranch`` that watch and try out; `cli` has the group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Command, json_option, pass_app, show

if TYPE_CHECKING:
    from typing import TextIO

    from celery import Celery


@click.command(cls=Command)
@click.option("--interval", default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--window", default=60.0, show_default=True, help="Seconds that waits and shares are about.")
@click.option("--rows", default=20, show_default=True, help="Most clients shown.")
@click.option("--once", is_flag=True, help="Look once.")
@click.option("--json", "as_json", is_flag=True, help="Look once and print JSON, for other programs.")
@pass_app
def top(app: Celery, interval: float, window: float, rows: int, once: bool, as_json: bool) -> None:
    """Who waits how long, and who gets which share; again and again."""
    from dataclasses import asdict

    from .standings import rows_of, standings

    while True:
        seen = standings(app, window=window)
        if as_json:
            show(asdict(seen), as_json=True)
            return
        if not once:
            click.clear()
        fairness = "-" if seen.jain is None else f"{seen.jain:.3f}"
        click.echo(f"{len(seen.clients)} clients, last {window:g} s, Jain's index {fairness}")
        show(rows_of(seen)[:rows], as_json=False)
        if once:
            return
        time.sleep(interval)


@click.command(cls=Command)
@click.option("--port", type=int, help="Serve them there instead, until interrupted.")
@click.option("--clients", is_flag=True, help="Also one series for each client.")
@pass_app
def metrics(app: Celery, port: int | None, clients: bool) -> None:
    """Print the metrics of the backlog for Prometheus."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server

        from .metrics import BacklogCollector
    except ImportError:
        raise click.ClickException("install celery-toolkit-ranch[prometheus]") from None
    registry = CollectorRegistry()
    registry.register(BacklogCollector(app, clients=clients))
    if port is None:
        click.echo(generate_latest(registry), nl=False)
        return
    _, thread = start_http_server(port, registry=registry)
    thread.join()


@click.command(cls=Command)
@click.option("--user", default="ranch", show_default=True, help="Its name.")
@pass_app
def acl(app: Celery, user: str) -> None:
    """Print the command that makes a Redis user who may do just what ranch needs."""
    from .acl import rule
    from .application import ranch_of

    click.echo(rule(user, ranch_of(app).settings.redis_prefix))


@click.command(cls=Command)
@pass_app
def trace(app: Celery) -> None:
    """Print the last tasks that ran, for 'simulate'."""
    from .application import ranch_of
    from .traces import recorded

    for line in recorded(app, ranch_of(app).backlog):
        click.echo(line)


@click.command(cls=Command)
@click.argument("trace", type=click.File(), required=False)
@click.option("--workers", default=4, show_default=True, help="How many tasks run at a time.")
@click.option("--plot", type=click.Path(dir_okay=False, writable=True), help="Draw who waits how long, as SVG.")
@json_option
@pass_app
def simulate(app: Celery, trace: TextIO | None, workers: int, plot: str | None, as_json: bool) -> None:
    """Replay a trace: who waits how long in one line for all, by turns, and by weight and running time.

    TRACE is a file as 'celery ranch trace' prints it; without one, a bulk import and four people are made up. The
    scripts that decide are those of the workers; they run on the application's Redis, under keys of their own.
    """
    from pathlib import Path

    from celery_toolkit_core.parameters import count

    from .application import ranch_of
    from .pictures import picture, rows_of
    from .simulation import POLICIES
    from .simulation import simulate as replay_trace
    from .traces import example, read_trace

    if trace is None:
        click.echo("made up: a bulk import and four people, waits in seconds; give a TRACE for your own", err=True)
    tasks = example() if trace is None else read_trace(trace)
    client, prefix = ranch_of(app).backlog.client, ranch_of(app).settings.redis_prefix
    count("workers", workers)
    runs = {policy: replay_trace(client, prefix, tasks, policy, workers=workers) for policy in POLICIES}
    rows = [{"policy": policy, **row} for policy, waits in runs.items() for row in rows_of(waits)]
    show(rows, as_json=as_json)
    if plot is not None:
        title = f"{len(tasks)} tasks, {workers} at a time: each bar is a task that waits"
        Path(plot).write_text(picture(title, runs), encoding="utf-8")
        click.echo(f"drawn: {plot}", err=True)
