"""``celery-showcase ...`` and ``celery showcase ...``: each group of commands is a module of this folder.

Every ``celery`` command imports this, so the modules import click at their top and the rest inside their functions.
"""

from __future__ import annotations

import click

from celery_toolkit_core.celery.cli import Group

from .beat import beat
from .dead import dead
from .doctor import doctor
from .init import init
from .metrics import metrics
from .queues import purge, queues, status
from .tour import tour
from .workers import flower, workers


@click.group(name="showcase", cls=Group)
def showcase() -> None:
    """A production Celery in one install, and a tour of it."""


for _command in (beat, dead, doctor, flower, init, metrics, purge, queues, status, tour, workers):
    showcase.add_command(_command)


def main() -> None:
    """The command ``celery-showcase``."""
    showcase(prog_name="celery-showcase")
