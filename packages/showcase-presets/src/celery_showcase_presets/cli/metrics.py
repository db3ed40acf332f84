"""``celery showcase metrics``: what Prometheus reads."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from celery_toolkit_core.celery.cli import Command, pass_app

if TYPE_CHECKING:
    from celery import Celery


@click.command(cls=Command)
@click.option("--port", type=click.IntRange(0, 65535), default=9808, show_default=True, help="0 chooses a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 for all.")
@pass_app
def metrics(app: Celery, port: int, host: str) -> None:
    """Serve queues, workers, ends of tasks and dead letters to Prometheus, until interrupted."""
    try:
        from ..metrics import Exporter
    except ImportError:
        raise click.ClickException("metrics need celery-toolkit-showcase-presets[prometheus]") from None

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Exporter(app, host=host, port=port) as exporter:
        click.echo(f"metrics on http://{host}:{exporter.port}/metrics")
        try:
            signal.pause()
        except KeyboardInterrupt:
            click.echo("ends")
