"""``celery showcase dead``: list, show, replay and purge dead letters."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """A moment, or how long ago it was; as seconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        given = str(value)
        number, unit = given[:-1], _UNITS.get(given[-1:])
        try:
            if unit is not None:
                return time.time() - max(0.0, float(number)) * unit
            moment = datetime.fromisoformat(given)
        except ValueError:
            self.fail(f"{given!r} is neither a moment such as 2026-11-21T04:00 nor an age such as 90s, 15m, 2h, 3d")
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@click.group(cls=Group)
def dead() -> None:
    """Dead letters: messages of tasks that failed for good."""


@dead.command("list")
@click.option("--task", help="Only letters of this task.")
@json_option
@pass_app
def list_letters(app: Celery, task: str | None, as_json: bool) -> None:
    """List the letters, oldest first."""
    from ..dead_letters import dead_letters_of

    rows = [
        {
            "id": letter.id,
            "task": letter.task,
            "reason": letter.reason,
            "exception": letter.details.get("exception"),
            "retries": letter.details.get("retries"),
            "at": _moment(letter.at),
        }
        for letter in dead_letters_of(app)
        if task in (None, letter.task)
    ]
    show(rows, as_json=as_json)


@dead.command("show")
@click.argument("task_id")
@json_option
@pass_app
def show_letter(app: Celery, task_id: str, as_json: bool) -> None:
    """Show one letter with its arguments and its traceback."""
    from ..dead_letters import dead_letters_of

    letter = dead_letters_of(app).find(task_id)
    if letter is None:
        raise click.ClickException(f"there is no dead letter of task {task_id}")
    details = dict(letter.details)
    traceback = details.pop("traceback", "")
    head = {"id": letter.id, "task": letter.task, "reason": letter.reason, "at": _moment(letter.at), **details}
    if as_json:
        show({**head, "traceback": traceback}, as_json=True)
    else:
        show(head, as_json=False)
        click.echo(traceback)


@dead.command("replay")
@click.argument("task_ids", nargs=-1)
@click.option("--task", help="All letters of this task.")
@click.option("--since", type=Moment(), help="All letters since 2026-11-21T04:00, or of the last 15m, 2h, 3d.")
@click.option("--all", "everything", is_flag=True, help="All letters.")
@pass_app
def replay_letters(
    app: Celery, task_ids: tuple[str, ...], task: str | None, since: float | None, everything: bool
) -> None:
    """Send messages again, each with its own task id, once; its attempts begin anew.

    --task and --since may be given together.
    """
    from ..dead_letters import replay

    _one_choice(task_ids, task is not None or since is not None, everything, "--task NAME, --since TIME")
    sent = replay(app, task_ids or None, task=task, since=since)
    if task_ids and not sent:
        raise click.ClickException("nothing sent: no such dead letter, or another call holds the task's key")
    click.echo(f"{len(sent)} sent")


@dead.command("purge")
@click.argument("task_ids", nargs=-1)
@click.option("--task", help="All letters of this task.")
@click.option("--all", "everything", is_flag=True, help="All letters.")
@pass_app
def purge_letters(app: Celery, task_ids: tuple[str, ...], task: str | None, everything: bool) -> None:
    """Remove letters for good."""
    from ..dead_letters import dead_letters_of

    _one_choice(task_ids, task is not None, everything, "--task NAME")
    letters = dead_letters_of(app)
    if everything:
        gone = letters.purge_older()
    else:
        chosen = task_ids or [letter.id for letter in letters if letter.task == task]
        gone = letters.purge(chosen) if chosen else 0
    click.echo(f"{gone} removed")


def _one_choice(task_ids: tuple[str, ...], chosen: bool, everything: bool, options: str) -> None:
    if sum((bool(task_ids), chosen, everything)) != 1:
        raise click.UsageError(f"give task ids, or {options}, or --all")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
