"""``celery showcase doctor``: name what is dangerous."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Command, json_option, pass_app, show

if TYPE_CHECKING:
    from celery import Celery


@click.command(cls=Command)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds for workers.")
@click.option("--offline", is_flag=True, help="Judge the configuration alone; ask no server and no worker.")
@json_option
@pass_app
def doctor(app: Celery, timeout: float, offline: bool, as_json: bool) -> None:
    """Name what is dangerous in the configuration, the tasks, the servers and the workers of an application.

    Exit code 1 when there is a danger; advice alone is no reason to fail.
    """
    from ..doctor import examine

    found = examine(app, timeout=timeout, look=not offline)
    if as_json:
        show([asdict(finding) for finding in found], as_json=True)
    else:
        for finding in found:
            click.echo(f"{finding.level}  {finding.check}: {finding.message}")
    if any(finding.level == "danger" for finding in found):
        raise SystemExit(1)
