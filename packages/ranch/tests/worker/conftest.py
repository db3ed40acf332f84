"""The application that most of these tests use, imported once: Celery's registry of shared tasks is the process's."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from celery_ranch import audit

_APPS = Path(__file__).parent / "apps"


@pytest.fixture
def fair(celery_environment, monkeypatch):
    monkeypatch.syspath_prepend(_APPS)
    return sys.modules.get("ranch_fair") or importlib.import_module("ranch_fair")


@pytest.fixture
def worker(celery_worker_process):
    def start(**options):
        return celery_worker_process("ranch_fair", **options)

    return start


@pytest.fixture
def balanced(fair):
    """The conservation law, once nothing is in flight any more."""

    def check(**expected):
        seen = audit(fair.app)
        assert seen["missing"] == 0
        assert {name: seen[name] for name in expected} == expected
        return seen

    return check
