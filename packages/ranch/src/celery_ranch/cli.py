"""``celery ranch``: look at the backlog, and tell it what an operator decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery

    from .backlog import Backlog
    from .clients import Clients
    from .places import Place


@click.group(cls=Group)
def ranch() -> None:
    """Fair scheduling between clients (celery-toolkit-ranch)."""


@ranch.command()
@json_option
@pass_app
def status(app: Celery, as_json: bool) -> None:
    """Where all tasks ever submitted are; 'missing' is 0 unless some were lost."""
    from .clients import audit

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
    columns = ("lru_key", "waiting", "in_flight", "served", "weight", "max_in_flight", "paused")
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
@pass_app
def resume(app: Celery, key: str) -> None:
    """End a client's pause."""
    _clients(app).resume(key)


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
    from .places import find

    places = find(_backlog(app), task_id)
    if as_json:
        show([{**_row(place), "why": _why(place)} for place in places], as_json=True)
    elif not places:
        click.echo("unknown to ranch: it has ended, another control holds it, or it was never sent for a client")
    for place in places if not as_json else ():
        click.echo(f"{place.name} of client {place.lru_key!r}: {_why(place)}")


@ranch.command()
@click.option("--retry", "decision", flag_value="retry", help="Send these to the head of their clients again.")
@click.option("--drop", "decision", flag_value="drop", help="Throw these away.")
@click.argument("entries", nargs=-1)
@json_option
@pass_app
def dead(app: Celery, decision: str | None, entries: tuple[str, ...], as_json: bool) -> None:
    """The tasks that will not be tried again, or a decision about some of them."""
    from . import places
    from .application import issue_quietly, ranch_of

    if decision is None:
        if entries:
            raise click.UsageError("say what is to become of them: --retry or --drop")
        columns = ("entry", "task_id", "name", "lru_key", "attempts", "why")
        show([_row(place) | {"why": place.b} for place in places.dead(_backlog(app))], as_json=as_json, columns=columns)
        return
    if not entries:
        raise click.UsageError(f"name the entries to {decision}; 'celery ranch dead' lists them")
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


def _row(place: Place) -> dict[str, Any]:
    return {
        "entry": place.entry,
        "task_id": place.task_id,
        "name": place.name,
        "lru_key": place.lru_key,
        "attempts": place.attempts,
        "state": place.state,
    }


def _why(place: Place) -> str:
    if place.state == "waiting":
        return f"its turn has not come: {place.a} tasks of its client and {place.b} clients are before it"
    if place.state == "held":
        reason = "the client is paused" if place.b == "paused" else "the client has as much in flight as its cap allows"
        return f"{reason}; {place.a} tasks of it are before this one"
    if place.state == "scheduled":
        return f"it is due at {_moment(place.a)}"
    if place.state == "in flight":
        return f"a worker has it, attempt {place.attempts + 1}; the lease runs until {_moment(place.a)}"
    if place.state == "dead":
        return f"it is dead since {_moment(place.a)} ({place.b}); see 'celery ranch dead'"
    return "it has just ended"


def _moment(milliseconds: str) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(milliseconds) / 1000))
