"""``celery ranch``: look at the backlog, and tell it what an operator decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show

if TYPE_CHECKING:
    from typing import TextIO

    from celery import Celery

    from .backlog import Backlog
    from .clients import Clients


@click.group(cls=Group)
def ranch() -> None:
    """Fair scheduling between clients (celery-toolkit-ranch)."""


@ranch.command()
@json_option
@pass_app
def status(app: Celery, as_json: bool) -> None:
    """Where all tasks ever submitted are; 'missing' is 0 unless some were lost."""
    from .audits import audit

    show(audit(app), as_json=as_json)


@ranch.command()
@click.option("--tag", "tag", metavar="NAME[=VALUE]", help="Only clients with this tag.")
@json_option
@pass_app
def clients(app: Celery, tag: str | None, as_json: bool) -> None:
    """The clients: what waits and runs, weight, cap."""
    known = _clients(app)
    if tag is None:
        rows = sorted(known.all(), key=lambda row: (-row["waiting"], row["lru_key"]))
    else:
        name, equals, value = tag.partition("=")
        keys = known.tagged(name, value if equals else None)
        rows = [row for row in map(known.show, keys) if row]
    columns = ("lru_key", "waiting", "in_flight", "served", "weight", "max_in_flight", "paused", "draining")
    show(rows, as_json=as_json, columns=columns)


@ranch.command("show")
@click.argument("key")
@json_option
@pass_app
def show_client(app: Celery, key: str, as_json: bool) -> None:
    """All that is known of one client."""
    found = _clients(app).show(key)
    if found is None:
        raise click.ClickException(f"no client {key!r} is known")
    show(found, as_json=as_json)


@ranch.command("set-weight")
@click.argument("key")
@click.argument("weight", type=float)
@pass_app
def set_weight(app: Celery, key: str, weight: float) -> None:
    """Set a client's weight: 0.5 is served twice as often as 1."""
    _clients(app).set_weight(key, weight)


@ranch.command("set-share")
@click.argument("key")
@click.argument("share", type=float)
@pass_app
def set_share(app: Celery, key: str, share: float) -> None:
    """Set a client's share: 2 is served twice as often as 1."""
    _clients(app).set_share(key, share)


@ranch.command("set-cap")
@click.argument("key")
@click.argument("most", metavar="NUMBER|none")
@pass_app
def set_cap(app: Celery, key: str, most: str) -> None:
    """Let at most so many tasks of a client be in flight; 'none' takes the cap away."""
    _clients(app).set_max_in_flight(key, _number(most))


@ranch.command("set-backlog")
@click.argument("key")
@click.argument("most", metavar="NUMBER|none")
@pass_app
def set_backlog(app: Celery, key: str, most: str) -> None:
    """Let at most so many tasks of a client wait; 'none' takes the limit away."""
    _clients(app).set_max_backlog(key, _number(most))


@ranch.command()
@click.argument("key")
@pass_app
def pause(app: Celery, key: str) -> None:
    """Let nothing of a client begin until 'resume'."""
    _clients(app).pause(key)


@ranch.command()
@click.argument("key")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait so long until nothing of it is left.")
@pass_app
def drain(app: Celery, key: str, wait: float | None) -> None:
    """Take no new tasks of a client until 'resume'; what waits goes on."""
    left = _clients(app).drain(key, wait=wait)
    click.echo(f"{left} tasks left")
    if left and wait is not None:
        raise click.exceptions.Exit(1)


@ranch.command()
@click.argument("key")
@pass_app
def resume(app: Celery, key: str) -> None:
    """End a client's pause, or drain."""
    _clients(app).resume(key)


@ranch.command()
@click.argument("key")
@click.confirmation_option(prompt="Throw the waiting tasks of this client away?")
@pass_app
def purge(app: Celery, key: str) -> None:
    """Throw away what a client has waiting."""
    click.echo(f"{_clients(app).purge(key)} tasks thrown away")


@ranch.command()
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


@ranch.command()
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


@ranch.command()
@pass_app
def trace(app: Celery) -> None:
    """Print the last tasks that ran, for 'simulate'."""
    from .traces import recorded

    for line in recorded(app, _backlog(app)):
        click.echo(line)


@ranch.command()
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

    tasks = example() if trace is None else read_trace(trace)
    client, prefix = _backlog(app).client, ranch_of(app).settings.redis_prefix
    count("workers", workers)
    runs = {policy: replay_trace(client, prefix, tasks, policy, workers=workers) for policy in POLICIES}
    rows = [{"policy": policy, **row} for policy, waits in runs.items() for row in rows_of(waits)]
    show(rows, as_json=as_json)
    if plot is not None:
        title = f"{len(tasks)} tasks, {workers} at a time: each bar is a task that waits"
        Path(plot).write_text(picture(title, runs), encoding="utf-8")
        click.echo(f"drawn: {plot}", err=True)


@ranch.command()
@click.argument("task_id")
@json_option
@pass_app
def explain(app: Celery, task_id: str, as_json: bool) -> None:
    """Say why a task is not running. Reads the whole backlog, page by page."""
    from . import reasons

    found = reasons.explain(app, task_id)
    if as_json:
        show(found, as_json=True)
        return
    for each in found:
        subject = f"{each['name']} of client {each['lru_key']!r}: " if each["name"] else ""
        click.echo(f"{subject}{each['why']}")


@ranch.group(cls=Group)
def dead() -> None:
    """The tasks that will not be tried again, and what is to become of them."""


@dead.command("list")
@json_option
@pass_app
def list_dead(app: Celery, as_json: bool) -> None:
    """List them: lost with as many workers as 'ranch_max_attempts' allows, or unreadable."""
    from . import places
    from .reasons import row_of

    columns = ("entry", "task_id", "name", "lru_key", "attempts", "why")
    rows = [row_of(place) | {"why": place.b or place.state} for place in places.dead(_backlog(app))]
    show(rows, as_json=as_json, columns=columns)


@dead.command()
@click.argument("entries", nargs=-1, required=True)
@pass_app
def replay(app: Celery, entries: tuple[str, ...]) -> None:
    """Send some to the heads of their clients again, as though never tried."""
    _decide(app, "retry", entries)


@dead.command()
@click.argument("entries", nargs=-1, required=True)
@pass_app
def drop(app: Celery, entries: tuple[str, ...]) -> None:
    """Throw some away."""
    _decide(app, "drop", entries)


def _decide(app: Celery, decision: str, entries: tuple[str, ...]) -> None:
    from . import places
    from .application import issue_quietly, ranch_of

    decided, tickets = places.decide(_backlog(app), decision, entries)
    issue_quietly(ranch_of(app), tickets)
    click.echo(f"{decided} of {len(entries)} decided")


def _clients(app: Celery) -> Clients:
    from .clients import Clients

    return Clients(app)


def _backlog(app: Celery) -> Backlog:
    from .application import ranch_of

    return ranch_of(app).backlog


def _number(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a whole number nor 'none'") from None
