"""What the tests of commands share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner


@dataclass
class Said:
    """What a command wrote, as `subprocess` calls it."""

    stdout: str
    stderr: str


@pytest.fixture
def showcase(celery_app_module):
    """Runs ``celery -A MODULE showcase ...`` in this process, which is quicker."""

    def run(*arguments, module="publisher", code=0):
        celery_app_module(module)
        result = CliRunner().invoke(celery, ["-A", module, "showcase", *map(str, arguments)], prog_name="celery")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return Said(result.stdout, result.stderr)

    return run
