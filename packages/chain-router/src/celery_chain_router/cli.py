"""``celery -A proj chain-router ...``: who is on the ring, where a key goes, what a change would move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, refuse_beside, show

if TYPE_CHECKING:
    from celery_toolkit_core.ring import HashRing

    from .partition_overview import Overview
    from .router import ChainRouter
    from .sharing import Sharing
    from .traffic import Traffic

refuse_beside("celery-toolkit-chain-router", "celery-chain-router")


@click.group("chain-router", cls=Group)
def chain_router() -> None:
    """Same key, same worker: look at the ring of workers, and change it."""


@chain_router.command()
@json_option
@pass_app
def workers(app: Any, as_json: bool) -> None:
    """List the workers: state, weight, share of the keys, messages per minute, who holds the name."""
    overview = _overview(app)
    if overview is not None:
        show(overview.workers(), as_json=as_json)
        return
    router = _router(app)
    members = router.sharing.view.members if router.sharing else {}
    shares, traffic = router.ring.shares(), _traffic(router)
    rows = [
        {
            "name": name,
            "state": members[name].state if name in members else "registered",
            "weight": members[name].weight if name in members else router.ring.weights.get(name),
            "share": round(shares.get(name, 0.0), 4),
            "per_minute": traffic[name].received if name in traffic else None,
            "other_view": traffic[name].other_view if name in traffic else None,
            "lease_s": round(members[name].seconds, 1) if name in members else None,
            "holder": members[name].holder if name in members else None,
        }
        for name in sorted({*members, *router.ring})
    ]
    show(rows, as_json=as_json)


@chain_router.command()
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ring into this SVG file.")
@json_option
@pass_app
def ring(app: Any, plot: Path | None, as_json: bool) -> None:
    """Show the ring: its fingerprint and each worker's exact share of the keys.

    `other_view` counts messages per minute whose sender had another ring: for a second after each change that is as it
    must be, for longer some process does not follow.
    """
    router = _router(app)
    found, traffic = router.ring, _traffic(router)
    if plot is not None:
        from .picture import ring_picture

        try:
            plot.write_text(ring_picture(found, {name: each.received for name, each in traffic.items()}), "utf-8")
        except OSError as error:
            raise click.ClickException(f"--plot {plot}: {error.strerror}") from error
    shares = {name: round(share, 4) for name, share in found.shares().items()}
    document = {
        "fingerprint": found.fingerprint,
        "virtual_nodes": found.virtual_nodes,
        "workers": len(found),
        "other_view": round(sum(each.other_view for each in traffic.values()), 2),
    }
    show({**document, "shares": shares} if as_json else {**document, **shares}, as_json=as_json)


@chain_router.command("top-keys")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="So many keys at most.")
@click.option("--worker", help="Only the keys of this worker.")
@json_option
@pass_app
def top_keys(app: Any, limit: int, worker: str | None, as_json: bool) -> None:
    """List the hottest keys of the last minutes: which worker got how many messages of each per minute.

    A rate may be too high by `excess` at most. How many keys each worker tells of is the setting chain_router_top_keys.
    """
    router = _router(app)
    _shared(router)
    rows: list[dict[str, Any]] = [
        {"key": label, "worker": name, "per_minute": rate, "excess": excess, "hash": key}
        for name, each in _traffic(router).items()
        if worker in (None, name)
        for key, label, rate, excess in each.top
    ]
    show(sorted(rows, key=lambda row: -row["per_minute"])[:limit], as_json=as_json)


@chain_router.command()
@click.argument("key")
@click.option("--int", "is_int", is_flag=True, help="The key is a whole number, not a text.")
@json_option
@pass_app
def where(app: Any, key: str, is_int: bool, as_json: bool) -> None:
    """Say to which worker a KEY goes now, and who would inherit it."""
    try:
        value: Any = int(key) if is_int else key
    except ValueError:
        raise click.BadParameter(f"{key!r} is no whole number", param_hint="KEY") from None
    overview = _overview(app)
    if overview is not None:
        show(overview.where(value), as_json=as_json)
        return
    found = _router(app).ring
    owners = found.successors(value, 2) if found else []
    worker, heir = [*owners, None, None][:2]
    show({"key": value, "worker": worker, "then": heir}, as_json=as_json)


@chain_router.command()
@click.option("--add", multiple=True, metavar="NAME[=WEIGHT]", help="A worker that would join; may be repeated.")
@click.option("--remove", multiple=True, metavar="NAME", help="A worker that would leave; may be repeated.")
@json_option
@pass_app
def plan(app: Any, add: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Say exactly which share of the keys a change would move, and from where to where; nothing is changed."""
    before = _router(app).ring
    after = _changed(before, add, remove)
    moves = before.moves(after) if before and after else {}
    rows = [
        {"from": source, "to": target, "share": round(share, 6)}
        for (source, target), share in sorted(moves.items(), key=lambda move: -move[1])
    ]
    if as_json:
        show({"moved": sum(moves.values()), "moves": rows}, as_json=True)
    else:
        show(rows, as_json=False)
        click.echo(f"{sum(moves.values()):.2%} of the keys would move")


@chain_router.command()
@json_option
@pass_app
def partitions(app: Any, as_json: bool) -> None:
    """List the partitions: state, owner, fence, messages that wait and that are unacknowledged.

    States: `owned`; `moving` to the worker under `next`; `orphaned`: the owner died and nobody has taken over yet;
    `free`: released, or never had an owner.
    """
    overview = _overview(app)
    if overview is None:
        raise click.ClickException("the router is in ring mode, which has no partitions: see `workers` and `ring`")
    show(overview.rows(), as_json=as_json)


@chain_router.command()
@click.argument("name")
@json_option
@pass_app
def drain(app: Any, name: str, as_json: bool) -> None:
    """Give the worker NAME no new keys; it goes on with what is in its queue. Starting it anew ends this."""
    overview = _overview(app)
    membership = overview.membership if overview is not None else _shared(_router(app)).membership
    if not membership.drain(name):
        raise click.ClickException(f"no living worker has the name {name!r}")
    if as_json:
        show({"draining": name}, as_json=True)
    else:
        click.echo(f"{name} gets no new keys")


def _overview(app: Any) -> Overview | None:
    """What there is to see of partition mode; ``None`` in ring mode."""
    router = _found_router(app)
    if router.partitions is None:
        return None
    from .partition_overview import Overview

    return Overview(app, router)


@chain_router.command()
@click.option("--user", default="chain-router", show_default=True, help="Its name.")
@pass_app
def acl(app: Any, user: str) -> None:
    """Print the command that makes a Redis user who may do just what the membership needs."""
    from .acl import rule
    from .discovery import key_space, settings_of

    click.echo(rule(user, key_space(settings_of(app))))


def _found_router(app: Any) -> ChainRouter:
    from .discovery import find_router
    from .errors import RouterNotFound

    router = find_router(app)
    if router is None:
        raise RouterNotFound("the application has no ChainRouter in task_routes: set app.conf.task_routes = router")
    return router


def _router(app: Any) -> ChainRouter:
    """The application's router, with the membership of this moment."""
    router = _found_router(app)
    if router.partitions is not None:
        raise click.ClickException(
            "the router is in partition mode, which has no ring: see `partitions`, `workers` and `where`"
        )
    sharing = router.attach(app)
    if sharing is not None:
        # An error here is what the operator wants to see; `refresh` would swallow it.
        sharing.membership.view()
        sharing.refresh()
    return router


def _shared(router: ChainRouter) -> Sharing:
    if router.sharing is None:
        raise click.ClickException("the membership is not shared: set chain_router_redis_url")
    return router.sharing


def _traffic(router: ChainRouter) -> dict[str, Traffic]:
    return router.sharing.membership.traffic() if router.sharing else {}


def _changed(ring: HashRing, add: tuple[str, ...], remove: tuple[str, ...]) -> HashRing:
    from .names import weight, worker_name

    for name in remove:
        if name not in ring:
            raise click.BadParameter(f"{name!r} is not on the ring", param_hint="--remove")
        ring = ring.without_node(name)
    for entry in add:
        name, _, given = entry.partition("=")
        try:
            ring = ring.with_node(worker_name(name), weight(float(given or 1)))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--add") from None
    return ring
