"""``celery-showcase init``: files to run Celery with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from celery_toolkit_core.celery.cli import Command


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--app", default="proj.apps", show_default=True, help="Module with publisher, heavy and light.")
@click.option("--image", default="proj:latest", show_default=True, help="The container image.")
@click.option("--name", default="celery", show_default=True, help="What compose calls the project.")
@click.option("--broker", default="redis", show_default=True, metavar="redis|rabbitmq", help="What carries messages.")
@click.option("--workdir", default="/opt/celery", show_default=True, help="The project's folder, for systemd.")
@click.option("--longest-task", type=float, default=1860, show_default=True, help="Seconds a heavy task may run.")
@click.option("--force", is_flag=True, help="Overwrite what is there, except for the files with passwords.")
def init(folder: Path, force: bool, **choices: Any) -> None:
    """Write files to run Celery with: compose, systemd units, a Helm chart, alerts, a dashboard.

    Passwords are made now, for this folder alone. The options' values end up in the files; change them there later.
    """
    from ..scaffold import SECRET_FILES, Choices, write

    try:
        written = write(folder, Choices(**choices), force=force)
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    for place in written:
        click.echo(f"{folder / place}{'  (has passwords)' if place in SECRET_FILES else ''}")
    click.echo(f"next: read {folder / 'README.md'}")
