"""``celery heimdall``: who holds what, and why a task is not running."""

from __future__ import annotations

from typing import Any

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, refuse_beside, show
from celery_toolkit_core.parameters import nearest

refuse_beside("celery-toolkit-heimdall", "celery-heimdall")


@click.group(cls=Group)
def heimdall() -> None:
    """Unique and limited tasks: who holds what, and why a task is not running."""


@heimdall.command()
@click.option("--task", help="Only the locks that tasks of this name took.")
@click.option("--stale", is_flag=True, help="Only what looks forgotten, and why.")
@json_option
@pass_app
def locks(app: Any, task: str | None, stale: bool, as_json: bool) -> None:
    """The keys that are held now."""
    from . import inspection

    rows = [row for store in _stores(app) for row in inspection.locks(store, task=task, stale=stale)]
    columns = ("key", "task", "state", "holder", "accepts_next_in", "lease_ends_in", "waiting")
    show(rows, as_json=as_json, columns=(*columns, "stale") if stale else columns)


@heimdall.command("show")
@click.argument("key")
@json_option
@pass_app
def show_key(app: Any, key: str, as_json: bool) -> None:
    """One key: who holds it, who waits for it, and which tasks are declared with it."""
    from . import inspection

    found = [inspection.lock(store, prefix, key) for store, prefix in _prefixes(app)]
    sharing = [
        task.name
        for task in app.tasks.values()
        if (options := getattr(task, "heimdall_config", None)) and options.unique and options.unique.key == key
    ]
    rows = [{**row, "tasks": sorted({row["task"], *sharing})} for row in found if row is not None]
    if not rows:
        raise click.ClickException(f"nobody holds the key {key}")
    if as_json:
        show(rows, as_json=True)
    for row in () if as_json else rows:
        show(row, as_json=False)


@heimdall.command()
@click.argument("key")
@json_option
@pass_app
def release(app: Any, key: str, as_json: bool) -> None:
    """Free a key by hand; a body that runs goes on."""
    from .unique import free

    freed = [free(store, prefix, key) for store, prefix in _prefixes(app)]
    if not any(freed):
        raise click.ClickException(f"nobody holds the key {key}")
    _done({"released": key}, f"released {key}", as_json=as_json)


@heimdall.command()
@click.option("--key", help="Of limits that are parted, this part. For `by`, the repr of the argument.")
@json_option
@pass_app
def limits(app: Any, key: str | None, as_json: bool) -> None:
    """The limits that tasks of the application declare, and how much of them is used."""
    from .declarations import declared_limits

    _stores(app)
    rows = [_limit_row(each, key) for each in declared_limits(app)]
    show(rows, as_json=as_json)


@heimdall.command("set-limit")
@click.argument("name")
@click.argument("value")
@click.option("--key", help="Only for this part of the limit. For `by`, the repr of the argument.")
@click.option("--for", "lasting", help="Such as 90s, 10m, 2h, 1d; until further notice when left out.")
@json_option
@pass_app
def change(app: Any, name: str, value: str, key: str | None, lasting: str | None, as_json: bool) -> None:
    """Put VALUE in force for a limit: 120/m, a whole number of places, paused, resumed, or default."""
    from .declarations import declared_limits
    from .limits import set_limit

    _stores(app)
    names = {each.name for each in declared_limits(app) if each.name}
    changed = {"default": None}.get(value, int(value) if value.isdecimal() else value)
    set_limit(name, changed, key=key, lasting=_duration(lasting), app=app)
    if name not in names:
        # Allowed: it may be another program's, or have its name from a function.
        click.echo(f"note: no task here declares a limit called {name}{nearest(name, sorted(names))}", err=True)
    _done({"limit": name, "key": key, "value": value, "for": _duration(lasting)}, f"{name}: {value}", as_json=as_json)


@heimdall.command()
@click.option("--key", help="Only what waits for this key, this limit, or this part of a limit.")
@json_option
@pass_app
def parked(app: Any, key: str | None, as_json: bool) -> None:
    """The tasks that wait in Redis."""
    from . import inspection

    show([row for store in _stores(app) for row in inspection.parked(store, name=key)], as_json=as_json)


@heimdall.command()
@click.argument("task_id")
@json_option
@pass_app
def explain(app: Any, task_id: str, as_json: bool) -> None:
    """Why a task is not running."""
    from . import explaining

    found = explaining.explain(app, _stores(app), task_id)
    _done(found, found["text"], as_json=as_json)


@heimdall.command()
@json_option
@pass_app
def reap(app: Any, as_json: bool) -> None:
    """Put what dead workers left back in line, and wake what is due, now rather than at the next sweep."""
    from .waking import Waker

    waker = Waker(app)
    for store in _stores(app):
        while waker.look(store) <= 0:
            pass
    found = {"woken": waker.woken, "back_in_line": waker.late}
    _done(found, f"woken {waker.woken}, back in line {waker.late}", as_json=as_json)


@heimdall.command()
@click.option("--user", default="heimdall", show_default=True, help="Its name.")
@json_option
@pass_app
def acl(app: Any, user: str, as_json: bool) -> None:
    """Print the command that makes a Redis user who may do just what heimdall needs."""
    from .acl import rule
    from .store import settings_of

    line = rule(user, settings_of(app).namespace)
    _done({"command": line}, line, as_json=as_json)


def _limit_row(declared: Any, key: str | None) -> dict[str, Any]:
    from celery_toolkit_core.limits import Limiter

    row: dict[str, Any] = {"limit": declared.name or "(by a function)", "kind": declared.kind, "parted": declared.parts}
    row |= dict.fromkeys(("times", "per", "used", "free_in", "stopped_for"))
    if declared.limit is not None and declared.parts == (key is not None):
        limiter = Limiter(declared.store.client, declared.store.space)
        (state,) = limiter.peek([declared.demand(*([] if key is None else [key]))])
        row |= {"times": state.times, "used": state.used, "free_in": state.retry_after, "stopped_for": state.penalty}
        row["per"] = state.per if declared.kind == "rate" else None
    return row


def _done(found: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        show(found, as_json=True)
    else:
        click.echo(sentence)


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
