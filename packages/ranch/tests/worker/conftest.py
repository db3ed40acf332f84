"""The application that most of these tests use."""

from __future__ import annotations

import pytest

from celery_ranch import audit


@pytest.fixture
def fair(celery_app_module):
    return celery_app_module("ranch_fair")


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
