from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_toolkit_core import parameters
from celery_toolkit_core.celery.worker import (
    ConflictingDistribution,
    WorkerStep,
    install,
    refuse_both,
    warn_of_unknown_settings,
)
from celery_toolkit_core.settings import setting


@dataclass(frozen=True)
class PastureSettings:
    lease: float = setting(30.0, parameters.seconds)


class PastureStep(WorkerStep):
    prefix = "pasture"
    settings = PastureSettings

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.calls: list[str] = []

    def prepare(self, consumer: Any) -> None:
        self.calls.append("prepare")

    def finish(self, consumer: Any) -> None:
        self.calls.append(f"finish, keeper running: {self.keeper.is_running}")


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("unit", broker="memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def consumer(app: Celery) -> Any:
    return SimpleNamespace(app=app, steps=[])


def test_a_worker_that_ends_before_it_began_has_nothing_to_finish(consumer: Any) -> None:
    step = PastureStep(consumer)
    step.shutdown(consumer)
    assert step.calls == []


def test_over_a_reconnect_the_step_prepares_once_and_keeps_one_thread(consumer: Any) -> None:
    step = PastureStep(consumer)
    step.start(consumer)
    thread = step.keeper._thread
    for _ in range(2):
        step.stop(consumer)
        assert step.keeper.is_running
        step.start(consumer)
    assert step.keeper._thread is thread
    step.terminate(consumer)
    assert step.keeper.is_running
    step.shutdown(consumer)
    assert step.calls == ["prepare", "finish, keeper running: True"]
    assert not [each for each in threading.enumerate() if each.name == "pasture-keeper"]


def test_a_step_that_cannot_finish_does_not_keep_the_worker_from_ending(
    consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(PastureStep):
        def finish(self, consumer: Any) -> None:
            raise KeyError("on purpose")

    step = Failing(consumer)
    step.start(consumer)
    step.shutdown(consumer)
    assert not step.keeper.is_running
    assert "on purpose" in caplog.text


def test_a_strategy_finds_the_step_of_its_worker(consumer: Any) -> None:
    assert PastureStep.of(consumer) is None
    step = PastureStep(consumer)
    consumer.steps += [object(), step]
    assert PastureStep.of(consumer) is step


def test_install_adds_the_step_once_however_often_it_is_called(app: Celery) -> None:
    install(app, PastureStep)
    install(app, PastureStep)
    assert [step for step in app.steps["consumer"] if step is PastureStep] == [PastureStep]


def test_misspelt_settings_are_named_with_the_nearest(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.update(pasture_leese=3, pasture_lease=3, other_leese=1)
    with caplog.at_level(logging.WARNING):
        assert warn_of_unknown_settings(app, "pasture", PastureSettings) == ["pasture_leese"]
    assert "did_you_mean=pasture_lease" in caplog.text


def test_djangos_settings_carry_the_namespace() -> None:
    source = SimpleNamespace(CELERY_PASTURE_LEESE=3, CELERY_PASTURE_LEASE=3, PASTURE_LEESE_OF_ANOTHER=1)
    with Celery("unit", broker="memory://", set_as_current=False) as app:
        app.config_from_object(source, namespace="CELERY")
        assert app.conf.get("pasture_lease") == 3
        assert warn_of_unknown_settings(app, "pasture", PastureSettings) == ["pasture_leese"]


def test_the_older_distribution_of_the_same_import_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "celery_pasture-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: celery-pasture\nVersion: 1.0\n")
    refuse_both("celery-toolkit-pasture", "celery-pasture")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConflictingDistribution) as caught:
        refuse_both("celery-toolkit-pasture", "celery-pasture")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.ours, error.other, error.version) == ("celery-toolkit-pasture", "celery-pasture", "1.0")
    assert "pip uninstall -y celery-pasture celery-toolkit-pasture" in str(error)


def test_a_step_that_replaces_another_distribution_refuses_in_the_worker_only(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producers go on: they hold no lease, and a web server must not fail over this."""
    monkeypatch.setattr(PastureStep, "replaces", ("celery-toolkit-pasture", "celery"))
    install(consumer.app, PastureStep)
    with pytest.raises(ConflictingDistribution):
        PastureStep(consumer)
