"""``manage.py celery_tutorial``: the tour, from a Django project."""
# mypy: disable-error-code="import-untyped,misc"
# Django ships no types.

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    """Start the tour; its options are those of ``celery-showcase tour``."""

    help = "See each piece do its job, on real workers and a real server."
    # The tour has its own workers, server and tasks, so that a project with faults can take it too.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options; the tour checks their values."""
        parser.add_argument("--loop", metavar="N", help="How many chains the bulk chapter sends.")
        parser.add_argument("--delay", metavar="S", help="Seconds that each heavy task of the bulk chapter takes.")
        parser.add_argument("--no-input", action="store_true", help="Do not wait for a key between chapters.")
        parser.add_argument("--only", metavar="CHAPTER", action="append", help="Only this chapter; may be repeated.")
        parser.add_argument("--rabbitmq", metavar="URL", help="Let this RabbitMQ carry the messages.")
        parser.add_argument("--management", metavar="URL", help="Its management API.")
        parser.add_argument("--output", metavar="DIR", help="Folder of the page with the pictures.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it in a process that does not have this project's settings, and end as that ends."""
        command = [sys.executable, "-c", "from celery_showcase_presets.cli import main; main()", "tour"]
        for name in ("loop", "delay", "rabbitmq", "management", "output"):
            if options[name] is not None:
                command += [f"--{name}", options[name]]
        for chapter in options["only"] or ():
            command += ["--only", chapter]
        if options["no_input"]:
            command.append("--no-input")
        environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        process = subprocess.Popen(command, env=environment)
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                # The terminal has told the tour as well: it takes its workers and keys away, and we wait for that.
                continue
        raise SystemExit(code if code >= 0 else 128 - code)
