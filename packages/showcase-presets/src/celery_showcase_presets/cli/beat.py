"""``celery showcase beat``: the one process that sends periodic tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery_toolkit_core.celery.cli import Group, pass_app

if TYPE_CHECKING:
    from celery import Celery

_PATH = click.Path(dir_okay=False, path_type=Path)
_pidfile = click.option("--pidfile", type=_PATH, default=Path("celerybeat.pid"), show_default=True)


@click.group(cls=Group)
def beat() -> None:
    """The one process that sends periodic tasks."""


@beat.command("start")
@_pidfile
@click.option("--background", is_flag=True, help="Return as soon as it runs.")
@click.option("--logfile", type=_PATH, default=Path("celerybeat.log"), show_default=True, help="With --background.")
@click.option("--schedule", type=_PATH, default=Path("celerybeat-schedule"), show_default=True)
@click.option("--scheduler", "-S", help="Another scheduler class, as in celery beat.")
@click.option("--loglevel", "-l", default="INFO", show_default=True)
@pass_app
def start_beat(app: Celery, pidfile: Path, background: bool, logfile: Path, **options: Any) -> None:
    """Start it, unless it runs."""
    from ..beat import Beat

    found = Beat(app, pidfile)
    if background:
        click.echo(f"beat runs as process {found.start(logfile=logfile, **options)}")
    else:
        found.run(**options)


@beat.command("stop")
@_pidfile
@pass_app
def stop_beat(app: Celery, pidfile: Path) -> None:
    """End it and wait until it has ended."""
    from ..beat import Beat

    pid = Beat(app, pidfile).stop()
    click.echo("beat does not run" if pid is None else f"beat, process {pid}, has ended")


@beat.command("status")
@_pidfile
@pass_app
def beat_status(app: Celery, pidfile: Path) -> None:
    """Say whether it runs; exit code 1 when it does not."""
    from ..beat import Beat

    pid = Beat(app, pidfile).pid
    click.echo("beat does not run" if pid is None else f"beat runs as process {pid}")
    if pid is None:
        raise SystemExit(1)
