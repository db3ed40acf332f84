"""The click base of ``celery <name>``: the application, output for people and machines, errors in one line.

Every ``celery`` command imports the entry points of all installed plugins, so nothing but click is imported here.
"""

from __future__ import annotations

import json
import re
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The user's part of any URL in a text: what stands between the scheme and the last @ of the word.
_USERINFO = re.compile(r"(\w://)\S*@")


class Command(click.Command):
    """A command whose foreseen errors are one line on stderr and exit code 1, without secrets."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if not _is_foreseen(error):
                raise
            line = " ".join(f"{error}".split()) or type(error).__name__
            # The traceback, with the values in it, is for errors that nobody foresaw.
            raise click.ClickException(_USERINFO.sub(r"\1**@", line)) from None


class Group(click.Group):
    """A group of such commands: ``@click.group(cls=Group)``."""

    command_class = Command
    group_class = type


def refuse_beside(ours: str, other: str) -> None:
    """Let no ``celery worker`` start while `other` is installed, even where its files have replaced those of `ours`.

    The worker's step refuses too, but is not there when `other` was installed last. Call this where the command is
    defined: every ``celery`` process imports that module, and the older distributions have none of its name.
    """
    from celery.signals import celeryd_init

    def refuse(**_: Any) -> None:
        from .worker import ConflictingDistribution, refuse_both

        try:
            refuse_both(ours, other)
        except ConflictingDistribution as error:
            # Celery logs any other exception of a receiver and goes on.
            raise SystemExit(f"Error: {error}") from None

    celeryd_init.connect(refuse, weak=False, dispatch_uid=f"{ours} beside {other}")


def pass_app(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the Celery application of ``-A`` as its first argument, or say that there is none."""

    @click.pass_context
    @wraps(function)
    def command(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        # Without -A Celery puts a default application in its place, which has nobody's settings.
        app = getattr(ctx.obj, "app", None)
        if app is None or not ctx.find_root().params.get("app"):
            raise click.ClickException("no app given, use -A")
        return ctx.invoke(function, app, *args, **kwargs)

    return command


#: ``--json``; the command gets it as `as_json`.
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")


def show(value: Any, *, as_json: bool, columns: Sequence[str] = ()) -> None:
    """Print what a command found.

    Args:
        value: A mapping, shown as ``name: value`` lines, or a sequence of mappings, shown as a table.
        as_json: One JSON document instead.
        columns: Which entries of the rows, in which order; by default those of the first row.
    """
    if as_json:
        click.echo(json.dumps(value, indent=2, default=str))
    elif hasattr(value, "items"):
        width = max((len(name) for name in value), default=0)
        for name, entry in value.items():
            click.echo(f"{name:<{width}}  {_cell(entry)}")
    elif not value:
        click.echo("none")
    else:
        for line in _table(value, columns or tuple(value[0])):
            click.echo(line)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    cells = [
        [name.replace("_", " ") for name in columns],
        *([_cell(row.get(name)) for name in columns] for row in rows),
    ]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A label is foreign text: control characters in it must not reach the terminal.
    return "".join(
        sign if sign.isprintable() else "?" for sign in (f"{value:g}" if isinstance(value, float) else str(value))
    )


def _is_foreseen(error: Exception) -> bool:
    from kombu.exceptions import KombuError
    from redis.exceptions import RedisError

    from ..errors import ToolkitError

    return isinstance(error, (ToolkitError, RedisError, KombuError))
