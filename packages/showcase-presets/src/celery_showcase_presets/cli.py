"""``celery-showcase ...`` and ``celery showcase ...``."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery


@click.group(name="showcase", cls=Group)
def showcase() -> None:
    """A production Celery in one install, and a tour of it."""


@showcase.command()
@click.option("--no-input", is_flag=True, help="Do not wait for a key between chapters.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Folder of the page with the pictures.",
)
def tour(no_input: bool, output: Path) -> None:
    """See each piece do its job, on real workers and a real server.

    Uses REDIS_URL, else a server on the default port under a prefix of its own, else a private one. Ends with exit code
    1 when an effect that it promised did not happen.
    """
    from .tour.run import run
    from .tour.screen import screen

    interactive = not no_input and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        run(screen(), output, _wait_for_key if interactive else _go_on)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@showcase.group()
def dead() -> None:
    """Dead letters: messages of tasks that failed for good."""


@dead.command("list")
@click.option("--task", help="Only letters of this task.")
@json_option
@pass_app
def list_letters(app: Celery, task: str | None, as_json: bool) -> None:
    """List the letters, oldest first."""
    from .dead_letters import dead_letters_of

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
    from .dead_letters import dead_letters_of

    letter = next((letter for letter in dead_letters_of(app) if letter.id == task_id), None)
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
    from .dead_letters import replay

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
    from .dead_letters import dead_letters_of

    _one_choice(task_ids, task, everything)
    letters = dead_letters_of(app)
    if everything:
        gone = letters.purge_older()
    else:
        chosen = task_ids or [letter.id for letter in letters if letter.task == task]
        gone = letters.purge(chosen) if chosen else 0
    click.echo(f"{gone} removed")


def main() -> None:
    """The command ``celery-showcase``."""
    showcase(prog_name="celery-showcase")


def _one_choice(task_ids: tuple[str, ...], task: str | None, everything: bool) -> None:
    if sum((bool(task_ids), task is not None, everything)) != 1:
        raise click.UsageError("give task ids, or --task NAME, or --all")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")


def _wait_for_key() -> None:
    click.echo("\n   press any key to go on", nl=False)
    # Not click.pause(), which takes Ctrl-C for a key.
    click.getchar()
    click.echo()


def _go_on() -> None:
    pass
