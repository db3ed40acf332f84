"""``celery ranch``: look at the backlog, and tell it what an operator decides."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, refuse_beside, show
from celery_toolkit_core.parameters import nearest

from . import cli_watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from .backlog import Backlog
    from .clients import Clients

refuse_beside("celery-toolkit-ranch", "celery-ranch")


@click.group(cls=Group)
def ranch() -> None:
    """Fair scheduling between clients (celery-toolkit-ranch)."""


for command in (cli_watching.top, cli_watching.metrics, cli_watching.trace, cli_watching.simulate, cli_watching.acl):
    ranch.add_command(command)


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
    if not as_json and (last := found["last_execution"]):
        found = found | {"last_execution": datetime.fromtimestamp(last, timezone.utc).isoformat(timespec="seconds")}
    show(found, as_json=as_json)


@ranch.command("set-weight")
@click.argument("key")
@click.argument("weight", type=float)
@pass_app
def set_weight(app: Celery, key: str, weight: float) -> None:
    """Set a client's weight: 0.5 is served twice as often as 1."""
    with _telling(app, key, f"weight {weight:g}") as known:
        known.set_weight(key, weight)


@ranch.command("set-share")
@click.argument("key")
@click.argument("share", type=float)
@pass_app
def set_share(app: Celery, key: str, share: float) -> None:
    """Set a client's share: 2 is served twice as often as 1."""
    with _telling(app, key, f"share {share:g}") as known:
        known.set_share(key, share)


@ranch.command("set-cap")
@click.argument("key")
@click.argument("most", metavar="NUMBER|none")
@pass_app
def set_cap(app: Celery, key: str, most: str) -> None:
    """Let at most so many tasks of a client be in flight; 'none' takes the cap away."""
    with _telling(app, key, f"at most {most} in flight") as known:
        known.set_max_in_flight(key, _number(most))


@ranch.command("set-backlog")
@click.argument("key")
@click.argument("most", metavar="NUMBER|none")
@pass_app
def set_backlog(app: Celery, key: str, most: str) -> None:
    """Let at most so many tasks of a client wait; 'none' takes the limit away."""
    with _telling(app, key, f"at most {most} waiting") as known:
        known.set_max_backlog(key, _number(most))


@ranch.command()
@click.argument("key")
@pass_app
def pause(app: Celery, key: str) -> None:
    """Let nothing of a client begin until 'resume'."""
    with _telling(app, key, "paused") as known:
        known.pause(key)


@ranch.command()
@click.argument("key")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait so long until nothing of it is left.")
@pass_app
def drain(app: Celery, key: str, wait: float | None) -> None:
    """Take no new tasks of a client until 'resume'; what waits goes on."""
    with _telling(app, key, "drained") as known:
        left = known.drain(key, wait=wait)
    click.echo(f"{left} tasks left")
    if left and wait is not None:
        raise click.exceptions.Exit(1)


@ranch.command()
@click.argument("key")
@pass_app
def resume(app: Celery, key: str) -> None:
    """End a client's pause, or drain."""
    with _telling(app, key, "resumed") as known:
        known.resume(key)


@ranch.command()
@click.argument("key")
@click.confirmation_option(prompt="Throw the waiting tasks of this client away?")
@pass_app
def purge(app: Celery, key: str) -> None:
    """Throw away what a client has waiting."""
    click.echo(f"{_clients(app).purge(key)} tasks thrown away")


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
    _decide(app, "retry", entries, "sent again")


@dead.command()
@click.argument("entries", nargs=-1, required=True)
@pass_app
def drop(app: Celery, entries: tuple[str, ...]) -> None:
    """Throw some away."""
    _decide(app, "drop", entries, "thrown away")


def _decide(app: Celery, decision: str, entries: tuple[str, ...], done: str) -> None:
    from . import places
    from .application import issue_quietly, ranch_of

    decided, tickets = places.decide(_backlog(app), decision, entries)
    issue_quietly(ranch_of(app), tickets)
    if not decided:
        raise click.ClickException(f"no dead entry is called {' or '.join(entries)}: see `dead list`, column entry")
    click.echo(f"{decided} of {len(entries)} {done}")


@contextmanager
def _telling(app: Celery, key: str, decided: str) -> Iterator[Clients]:
    """Say what was decided, and whether ranch had heard of the client: a typo makes a client that nobody is."""
    known = _clients(app)
    others = [row["lru_key"] for row in known.all()] if known.show(key) is None else [key]
    yield known
    if key not in others:
        # Allowed: a client may be given a weight before its first task.
        click.echo(f"note: no client {key!r} was known until now{nearest(key, others)}", err=True)
    click.echo(f"{key}: {decided}")


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
