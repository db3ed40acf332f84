"""``celery heimdall``: who holds what, and why a task is not running."""

from __future__ import annotations

from typing import Any

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show


@click.group(cls=Group)
def heimdall() -> None:
    """Unique and limited tasks: who holds what, and why a task is not running."""


@heimdall.command()
@click.option("--task", help="Only the locks that tasks of this name took.")
@json_option
@pass_app
def locks(app: Any, task: str | None, as_json: bool) -> None:
    """The keys that are held now."""
    from . import inspection

    show([row for store in _stores(app) for row in inspection.locks(store, task=task)], as_json=as_json)


@heimdall.command("show")
@click.argument("key")
@json_option
@pass_app
def show_key(app: Any, key: str, as_json: bool) -> None:
    """One key."""
    from . import inspection

    found = [inspection.lock(store, store.lock(prefix, key)) for store, prefix in _prefixes(app)]
    rows = [row for row in found if row is not None]
    if not rows:
        raise click.ClickException(f"nobody holds the key {key}")
    for row in rows:
        show(row, as_json=as_json)


@heimdall.command()
@click.argument("key")
@pass_app
def release(app: Any, key: str) -> None:
    """Free a key by hand; a body that runs goes on."""
    from .unique import free

    freed = [free(store, prefix, key) for store, prefix in _prefixes(app)]
    if not any(freed):
        raise click.ClickException(f"nobody holds the key {key}")
    click.echo(f"released {key}")


@heimdall.command()
@json_option
@pass_app
def limits(app: Any, as_json: bool) -> None:
    """The limits that tasks of the application declare without parts, and how much of them is used."""
    from celery_toolkit_core.limits import Limiter

    from .unique import declared_limits

    rows = []
    for store, demands in declared_limits(app):
        for state in Limiter(store.client, store.space).peek(demands):
            limit = state.demand.limit
            rows.append(
                {
                    "limit": limit.name,
                    "kind": state.demand.kind,
                    "times": state.times,
                    "per": state.per if state.demand.kind == "rate" else None,
                    "used": state.used,
                    "free_in": state.retry_after,
                }
            )
    show(rows, as_json=as_json)


@heimdall.command("set-limit")
@click.argument("name")
@click.argument("value")
@click.option("--key", help="Only for this part of the limit.")
@click.option("--for", "lasting", help="Such as 90s, 10m, 2h, 1d; until further notice when left out.")
@pass_app
def change(app: Any, name: str, value: str, key: str | None, lasting: str | None) -> None:
    """Put VALUE in force for a limit: 120/m, a whole number for a concurrency limit, paused, or default."""
    from .limits import set_limit

    changed = {"default": None}.get(value, int(value) if value.isdecimal() else value)
    set_limit(name, changed, key=key, lasting=_duration(lasting), app=app)
    click.echo(f"{name}: {value}")


@heimdall.command()
@json_option
@pass_app
def parked(app: Any, as_json: bool) -> None:
    """The tasks that wait in Redis."""
    from . import inspection

    show([row for store in _stores(app) for row in inspection.parked(store)], as_json=as_json)


@heimdall.command()
@click.argument("task_id")
@pass_app
def explain(app: Any, task_id: str) -> None:
    """Why a task is not running."""
    from . import inspection

    for store in _stores(app):
        click.echo(inspection.explain(store, task_id))


@heimdall.command()
@pass_app
def reap(app: Any) -> None:
    """Put what dead workers left back in line, and wake what is due, now rather than at the next sweep."""
    from .waking import Waker

    waker = Waker(app)
    for store in _stores(app):
        while waker.look(store) <= 0:
            pass
    click.echo("done")


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    number, unit = text[:-1], {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    if unit is None or not number.isdecimal():
        raise click.BadParameter("give a whole number and one of s, m, h, d, such as 10m", param_hint="--for")
    return float(number) * unit


def _stores(app: Any) -> list[Any]:
    from .store import all_stores, store_of

    app.finalize()
    app.loader.import_default_modules()
    return all_stores(app) or [store_of(app)]


def _prefixes(app: Any) -> list[tuple[Any, str]]:
    stores = _stores(app)
    options = [getattr(task, "heimdall_config", None) for task in app.tasks.values()]
    own = {each.lock_prefix for each in options if each and each.lock_prefix}
    return [(store, prefix) for store in stores for prefix in sorted({store.settings.lock_prefix, *own})]
