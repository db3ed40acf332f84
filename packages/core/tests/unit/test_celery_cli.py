from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import click
import pytest
import redis.exceptions
from celery import Celery
from click.testing import CliRunner, Result
from kombu.exceptions import OperationalError

from celery_toolkit_core.celery.cli import Group, json_option, pass_app, show
from celery_toolkit_core.errors import RedisUnavailable, ToolkitError


@click.group(cls=Group, name="pasture")
def pasture() -> None:
    """A group as a leaf has one."""


@pasture.command()
@json_option
@pass_app
def cows(app: Celery, as_json: bool) -> None:
    """List them."""
    show([{"name": app.main, "milk_given": 1.5}, {"name": "\x1b[31mred", "milk_given": None}], as_json=as_json)


@pasture.command()
@json_option
def cow(as_json: bool) -> None:
    """Show one."""
    show({"name": "Bella", "asleep": True}, as_json=as_json)


@pasture.command()
@click.argument("kind")
def fail(kind: str) -> None:
    """Fail in one of several ways."""
    raise {
        "toolkit": ToolkitError("the gate\nis shut"),
        "redis": RedisUnavailable("Redis at localhost:1/0 cannot be reached"),
        "driver": redis.exceptions.ResponseError("WRONGTYPE"),
        "broker": OperationalError("amqp://guest:canary@localhost:1// refused; redis://:canary@x:1/0 too"),
        "bug": ZeroDivisionError("a bug"),
        "silent": ToolkitError(""),
    }[kind]


@pasture.group()
def barn() -> None:
    """A group within."""


@barn.command()
def burn() -> None:
    """Fail."""
    raise ToolkitError("it burns")


class Parent:
    """Celery's own context object."""

    def __init__(self, app: Any) -> None:
        self.app = app


def invoke(*arguments: str, app: str | None = "proj") -> Result:
    @click.group()
    @click.option("-A", "--app")
    @click.pass_context
    def main(ctx: click.Context, app: str | None) -> None:
        # As Celery does: without -A there is an application all the same.
        ctx.obj = Parent(Celery(app or "default", set_as_current=False))

    main.add_command(pasture)
    given = ["-A", app] if app else []
    return CliRunner().invoke(main, [*given, "pasture", *arguments])


def test_a_table_for_people() -> None:
    result = invoke("cows")
    assert result.exit_code == 0
    assert result.output == "name      milk given\nproj      1.5\n?[31mred  -\n"


def test_json_for_programs() -> None:
    result = invoke("cows", "--json")
    assert json.loads(result.output) == [
        {"name": "proj", "milk_given": 1.5},
        {"name": "\x1b[31mred", "milk_given": None},
    ]


def test_lines_for_one_thing() -> None:
    assert invoke("cow").output == "name    Bella\nasleep  yes\n"
    assert json.loads(invoke("cow", "--json").output) == {"name": "Bella", "asleep": True}


def test_nothing_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    show([], as_json=False)
    assert capsys.readouterr().out == "none\n"


def test_without_an_app_it_says_so() -> None:
    result = invoke("cows", app=None)
    assert result.exit_code == 1
    assert result.output == "Error: no app given, use -A\n"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("toolkit", "Error: the gate is shut\n"),
        ("redis", "Error: Redis at localhost:1/0 cannot be reached\n"),
        ("driver", "Error: WRONGTYPE\n"),
        ("silent", "Error: ToolkitError\n"),
    ],
)
def test_a_foreseen_error_is_one_line(kind: str, line: str) -> None:
    result = invoke("fail", kind)
    assert (result.exit_code, result.output) == (1, line)


def test_no_password_is_printed() -> None:
    result = invoke("fail", "broker")
    assert result.exit_code == 1
    assert "canary" not in result.output
    assert "amqp://**@localhost:1// refused" in result.output


def test_a_bug_keeps_its_traceback() -> None:
    assert isinstance(invoke("fail", "bug").exception, ZeroDivisionError)


def test_groups_within_behave_alike() -> None:
    result = invoke("barn", "burn")
    assert (result.exit_code, result.output) == (1, "Error: it burns\n")


def test_wrong_usage_stays_clicks_own() -> None:
    assert invoke("cows", "--nonsense").exit_code == 2


def test_the_module_imports_nothing_heavy() -> None:
    """Every celery command imports every plugin."""
    code = "import sys, celery_toolkit_core.celery.cli; print({'celery.app', 'kombu', 'redis'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
