"""``celery showcase dead``: list, show, replay and purge dead letters."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery


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
@click.option("--all", "everything", is_flag=True, help="All letters.")
@pass_app
def replay_letters(app: Celery, task_ids: tuple[str, ...], task: str | None, everything: bool) -> None:
    """Send messages again, each with its own task id, once; its attempts begin anew."""
    from ..dead_letters import replay

    _one_choice(task_ids, task, everything)
    sent = replay(app, task_ids or None, task=task)
    click.echo(f"{len(sent)} sent")


@dead.command("purge")
@click.argument("task_ids", nargs=-1)
@click.option("--task", help="All letters of this task.")
@click.option("--all", "everything", is_flag=True, help="All letters.")
@pass_app
def purge_letters(app: Celery, task_ids: tuple[str, ...], task: str | None, everything: bool) -> None:
    """Remove letters for good."""
    from ..dead_letters import dead_letters_of

    _one_choice(task_ids, task, everything)
    letters = dead_letters_of(app)
    if everything:
        gone = letters.purge_older()
    else:
        chosen = task_ids or [letter.id for letter in letters if letter.task == task]
        gone = letters.purge(chosen) if chosen else 0
    click.echo(f"{gone} removed")


def _one_choice(task_ids: tuple[str, ...], task: str | None, everything: bool) -> None:
    if sum((bool(task_ids), task is not None, everything)) != 1:
        raise click.UsageError("give task ids, or --task NAME, or --all")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
