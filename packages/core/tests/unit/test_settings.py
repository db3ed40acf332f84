"""Settings of one prefix: typed, lazy, with the near name for a misspelt one."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest

from celery_toolkit_core import parameters
from celery_toolkit_core.errors import InvalidParameter
from celery_toolkit_core.settings import read_settings, setting, unknown_settings


@dataclass(frozen=True)
class Settings:
    lease: float = setting(30.0, parameters.seconds)
    strict: bool = setting(False, parameters.flag)
    label: str | None = setting(None, parameters.text)


def test_defaults_when_nothing_is_set():
    assert read_settings(Settings, "ranch", {}.get) == Settings(30.0, False, None)


def test_values_are_checked_and_brought_into_house_form():
    settings = read_settings(Settings, "ranch", {"ranch_lease": 5, "ranch_label": "x", "lease": 9}.get)
    assert settings == Settings(5.0, False, "x")
    assert isinstance(settings.lease, float)


@pytest.mark.parametrize(("name", "value"), [("ranch_lease", -1), ("ranch_lease", None), ("ranch_strict", "no")])
def test_a_bad_value_is_an_error_that_names_the_setting_in_full(name, value):
    with pytest.raises(InvalidParameter) as caught:
        read_settings(Settings, "ranch", {name: value}.get)
    assert caught.value.parameter == name


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        read_settings(Settings, "ranch", {}.get).lease = 1.0


def test_unknown_names_come_with_the_near_one():
    names = ["ranch_leese", "ranch_lease", "RANCH_STRICT", "heimdall_x", "ranch_redis_url", "ranch_zzz", "rancher", 5]
    assert unknown_settings(Settings, "ranch", names) == [("ranch_leese", "ranch_lease"), ("ranch_zzz", None)]
